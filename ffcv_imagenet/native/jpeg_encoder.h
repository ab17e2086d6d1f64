/*
 * Baseline 4:2:0 JPEGs as libjpeg-turbo writes them, bit for bit: its colour conversion, downsampling, accurate
 * ("islow") forward DCT, quantisation, and the Huffman tables of T.81 annex K. The entry points of the index are noted
 * on the way.
 */
#ifndef FIC_JPEG_ENCODER_H
#define FIC_JPEG_ENCODER_H

#include <stdint.h>

#include "buffer.h"

/* A code, its magnitude bits after it: the number of bits in bits 0 to 7, the bits from bit 8 on. */
typedef uint32_t fic_written_code;

/* To divide by 8 times a quantiser: (((|x| + correction) * reciprocal) >> 16) * scale >> 16. In natural order. */
typedef struct {
    _Alignas(32) uint16_t correction[64], reciprocal[64], scale[64];
} fic_divisors;

typedef struct {
    fic_written_code dc[12], ac[256]; /* without magnitude bits */
    /* With them, by the zeros before a value from -127 to 126; 0: there is none. Few of these are ever read. */
    fic_written_code short_values[64][256];
} fic_written_tables;

typedef struct {
    int32_t quality;          /* of the divisors; 0: there are none yet */
    uint8_t quantiser[2][64]; /* zigzag order; [luma, chroma] */
    fic_divisors divisors[2];
    fic_buffer tables; /* fic_written_tables[2], made once */
    fic_buffer rows, bits, points;
} fic_jpeg_encoder;

void fic_jpeg_encoder_free(fic_jpeg_encoder *encoder);

#endif
