/* Marker segments up to the first scan (ITU-T T.81 annex B, T.871 for JFIF). */
#ifndef FIC_JPEG_HEADER_H
#define FIC_JPEG_HEADER_H

#include <stdint.h>

#include "colour.h"

typedef struct {
    uint8_t identifier;
    uint8_t h, v;      /* sampling factors */
    uint8_t quantiser; /* table number */
    uint8_t dc, ac;    /* Huffman table numbers */
} fic_component;

typedef struct {
    int32_t width, height;
    int32_t num_components;
    fic_component component[4];
    int32_t progressive;
    int32_t native;         /* 1: one scan that this library decodes itself */
    enum fic_colour colour; /* of a native file */
    int32_t h, v;           /* luma samples per chroma sample in a native file: MCUs are 8h x 8v pixels */
    int32_t mcus_per_row, mcu_rows;
    int32_t restart_interval;    /* in MCUs, 0: none */
    const uint8_t *quantiser[4]; /* the 64 values, zigzag order, big-endian when 16 bits wide */
    uint8_t quantiser_is_16bit[4];
    const uint8_t *huffman[2][4]; /* [class: DC, AC][table number]: 16 counts and the values */
    int64_t scan_start;           /* offset of the first byte of entropy-coded data */
} fic_jpeg_header;

/* Pointers in *header refer to `jpeg`. Of tables only the form is looked at. Returns FIC_OK or an error; a file that is
 * not native is no error, but left to libjpeg. What libjpeg or Pillow refuse for its header is an error or not native:
 * nothing is taken here that the reference does not take. */
int32_t fic_parse_header(const uint8_t *jpeg, int64_t size, fic_jpeg_header *header);

#endif
