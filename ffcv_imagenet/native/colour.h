/* From a component's samples at the output size to RGB (ITU-T T.871). */
#ifndef FIC_COLOUR_H
#define FIC_COLOUR_H

#include "portable.h"

enum fic_colour { FIC_COLOUR_GREY, FIC_COLOUR_YCC, FIC_COLOUR_RGB };

/* Between the resampling passes and up to here samples carry 6 fractional bits: 255 * 64 fits 16 bits, and so does what
 * negative weights add to it. Sums that do not are far above 255: there 16-bit lanes saturate. */
#define FIC_FRACTION_BITS 6

/* T.871's constants; the integer parts are added, so that 15 fractional bits suffice. */
#define FIC_CR_TO_R 13173  /* 1.402 - 1 */
#define FIC_CB_TO_G -11277 /* -0.344136 */
#define FIC_CR_TO_G -23401 /* -0.714136 */
#define FIC_CB_TO_B -7471  /* 1.772 - 2 */
#define FIC_CHROMA_ZERO (128 << FIC_FRACTION_BITS)
#define FIC_FINAL_ROUND (1 << (FIC_FRACTION_BITS - 1))

FIC_INLINE int32_t fic_multiply_high(int32_t a, int32_t b)
{
    return (a * b + (1 << 14)) >> 15;
}

/* s: samples of the components, in place to red, green, blue 0..255. */
FIC_INLINE void fic_to_rgb(int32_t colour, int32_t s[3])
{
    if (colour == FIC_COLOUR_GREY) {
        s[1] = s[2] = s[0];
    } else if (colour == FIC_COLOUR_YCC) {
        int32_t luma = s[0], cb = s[1] - FIC_CHROMA_ZERO, cr = s[2] - FIC_CHROMA_ZERO;
        s[0] = luma + cr + fic_multiply_high(cr, FIC_CR_TO_R);
        s[1] = luma + fic_multiply_high(cb, FIC_CB_TO_G) + fic_multiply_high(cr, FIC_CR_TO_G);
        s[2] = luma + 2 * cb + fic_multiply_high(cb, FIC_CB_TO_B);
    }
    for (int32_t c = 0; c < 3; c++) {
        int32_t x = (s[c] + FIC_FINAL_ROUND) >> FIC_FRACTION_BITS;
        s[c] = x < 0 ? 0 : x > 255 ? 255 : x;
    }
}

#endif
