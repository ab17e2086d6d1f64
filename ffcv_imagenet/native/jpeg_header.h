/* Marker segments up to the first scan (ITU-T T.81 annex B, T.871 for JFIF). */
#ifndef FIC_JPEG_HEADER_H
#define FIC_JPEG_HEADER_H

#include <stdint.h>

#include "colour.h"

typedef struct {
    uint8_t identifier;
    uint8_t sampling_x, sampling_y; /* H and V of T.81 B.2.2 */
    uint8_t quantiser;              /* table number */
    uint8_t dc, ac;                 /* Huffman table numbers */
} fic_component;

typedef struct {
    int32_t width, height;
    int32_t num_components;
    fic_component component[4];
    int32_t progressive;
    int32_t native;         /* 1: one scan that this library decodes itself */
    enum fic_colour colour; /* of a native file */
    /* Luma samples per chroma sample in a native file, and so the blocks of luma in an MCU, which has one of each
     * chroma component. */
    int32_t subsampling_x, subsampling_y;
    int32_t mcus_per_row, mcu_rows;
    int32_t restart_interval;    /* in MCUs, 0: none */
    const uint8_t *quantiser[4]; /* the 64 values, zigzag order, big-endian when 16 bits wide */
    uint8_t quantiser_is_16bit[4];
    const uint8_t *huffman[2][4]; /* [class: DC, AC][table number]: 16 counts and the values */
    int32_t pillow_decides;       /* it reads a segment, before it decodes, that it may refuse the file for */
    int64_t scan_start;           /* offset of the first byte of entropy-coded data */
} fic_jpeg_header;

/* Pointers in *header refer to `jpeg`. Tables are only checked for their form. Returns FIC_OK or an error; a file that
 * is not native is not an error, but left to libjpeg. A header that libjpeg or Pillow refuses is an error or not
 * native: nothing is accepted here that the reference refuses. */
int32_t fic_parse_header(const uint8_t *jpeg, int64_t size, fic_jpeg_header *header);

/* Whether fic_read_plain_image can read the file: libjpeg does not smooth chroma that is two samples wide, and not all
 * of its versions smooth 4:4:0. */
int32_t fic_is_plain(const fic_jpeg_header *header);

/* Factors along the two axes. */
typedef struct {
    int32_t x, y;
} fic_factors;

/* Of component `c` of a native file: how many pixels wide and high a sample is. */
static inline fic_factors fic_pixels_per_sample(const fic_jpeg_header *header, int32_t c)
{
    return c > 0 ? (fic_factors){header->subsampling_x, header->subsampling_y} : (fic_factors){1, 1};
}

/* Of component `c` of a native file: how many of its blocks an MCU has. The coarser the samples, the fewer. */
static inline fic_factors fic_blocks_per_mcu(const fic_jpeg_header *header, int32_t c)
{
    return c > 0 ? (fic_factors){1, 1} : (fic_factors){header->subsampling_x, header->subsampling_y};
}

#endif
