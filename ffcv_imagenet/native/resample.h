/*
 * Separable resampling of planes, in fixed point.
 *
 * Along each axis output sample i is centred on input coordinate (i + 1/2) * in / out and weighs the input samples with
 * one of the filters of filter.h, renormalised where the crop's edge cuts it off: Pillow's BILINEAR and BICUBIC,
 * OpenCV's INTER_AREA where both axes shrink or both grow (where only one grows, OpenCV leaves out pixels of the
 * other). Between the two passes, and before the colour conversion, nothing is clipped: bicubic weights sum to at
 * most 1.27 in absolute value, so that samples, with their fraction, stay far inside of 16 bits, and only what the
 * colour conversion adds saturates. Subsampled chroma is not enlarged first: the weights of the enlarging filter (3/4
 * of the nearest sample, 1/4 of the next nearest, chroma centred as in JFIF) are multiplied into the table. Weights are
 * integers that sum to 2^14.
 */
#ifndef FIC_RESAMPLE_H
#define FIC_RESAMPLE_H

#include <stdint.h>

#include "buffer.h"
#include "colour.h"
#include "filter.h"

#define FIC_MAX_OUTPUT 16384

typedef struct {
    fic_filter_key key;
    int32_t pairs; /* weights per output sample / 2, padded with zero weights */
    /* For out_size outputs, and as many more as make a multiple of 8, which repeat the last: */
    int32_t *start;  /* even plane coordinate of the first weight */
    int16_t *weight; /* [2 * pairs] of each */
    int32_t *used;   /* pairs up to the last weight that is not 0 */
    fic_buffer table;
} fic_filter;

/* Nothing is done when the filter was built for this key already. */
int32_t fic_filter_build(fic_filter *filter, const fic_filter_key *key, int32_t simd);

typedef struct {
    const uint8_t *samples;
    int32_t stride; /* a multiple of 32, at least width rounded up to it; those samples are readable */
    int32_t width, height;
} fic_source;

typedef struct {
    fic_source source[3];
    int32_t num_components; /* 1 or 3 */
    enum fic_colour colour;
    const fic_filter *horizontal[3], *vertical[3]; /* of the second and third component: the same */
} fic_resampling;

typedef struct {
    fic_buffer rows, columns;
} fic_resampling_scratch;

/* out: out_size of the vertical filter * out_size of the horizontal filter * 3 bytes of RGB. */
int32_t fic_resample(const fic_resampling *task, fic_resampling_scratch *scratch, int32_t simd, uint8_t *out);

/* Split `width` RGB pixels into three rows. */
void fic_split_rgb(const uint8_t *rgb, int32_t width, uint8_t *r, uint8_t *g, uint8_t *b, int32_t simd);

#endif
