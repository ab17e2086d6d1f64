/* What the fuzz targets share: a crop drawn from control bytes, decoded with SIMD by a context that has seen all inputs
 * before, and scalar by a new one, which must agree. */
#ifndef FUZZ_COMMON_H
#define FUZZ_COMMON_H

#include <stdlib.h>
#include <string.h>

#include "fic.h"
#include "filter.h"

#define CONTROL_BYTES 16
#define MAX_PIXELS (1 << 18) /* larger frames only cost time */
#define MAX_OUT 40

typedef struct {
    int32_t x, y, w, h, out_w, out_h, flip, resize;
} box;

static int32_t scaled(uint8_t byte, int32_t range)
{
    return (int32_t)((int64_t)byte * range / 256);
}

static box draw_box(const uint8_t *control, int32_t width, int32_t height)
{
    box b;
    b.x = scaled(control[0], width);
    b.y = scaled(control[1], height);
    b.w = 1 + scaled(control[2], width - b.x);
    b.h = 1 + scaled(control[3], height - b.y);
    b.out_w = 1 + control[4] % MAX_OUT;
    b.out_h = 1 + control[5] % MAX_OUT;
    b.flip = control[6] & 1;
    b.resize = (control[6] >> 1) % FIC_NUM_RESIZES;
    return b;
}

/* Decodes into a buffer of exactly the output's size, which the caller frees. */
static int32_t decode(fic_decoder *decoder, int32_t simd, const uint8_t *jpeg, int64_t size, int32_t width,
                      int32_t height, const box *b, const uint8_t *index, int64_t index_size, int32_t k, uint8_t **out)
{
    *out = malloc((size_t)(b->out_w * b->out_h * 3));
    fic_set_simd(decoder, simd);
    int32_t code = fic_decode_crop(decoder, jpeg, size, width, height, b->x, b->y, b->w, b->h, b->out_w, b->out_h,
                                   b->flip, b->resize, index, index_size, k, *out);
    if (code > 0 || !strcmp(fic_error_message(code), "unknown error"))
        abort();
    return code;
}

/* Returns the code; *out holds the pixels. */
static int32_t decode_both(fic_decoder *decoder, const uint8_t *jpeg, int64_t size, int32_t width, int32_t height,
                           const box *b, const uint8_t *index, int64_t index_size, int32_t k, uint8_t **out)
{
    uint8_t *other;
    int32_t code = decode(decoder, 1, jpeg, size, width, height, b, index, index_size, k, out);
    fic_decoder *fresh = fic_decoder_new();
    int32_t scalar = decode(fresh, 0, jpeg, size, width, height, b, index, index_size, k, &other);
    fic_decoder_free(fresh);
    if (code != scalar || (code == 0 && memcmp(*out, other, (size_t)(b->out_w * b->out_h * 3))))
        abort();
    free(other);
    return code;
}

#endif
