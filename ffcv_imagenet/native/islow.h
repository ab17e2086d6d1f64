/*
 * Dequantisation and the inverse DCT with the bits of libjpeg's accurate method ("islow"), for whole images.
 *
 * libjpeg computes the odd half from sums of its inputs, in 13-bit constants; all of it is exact, so it is also a 4x4
 * matrix product, whose constants are sums of libjpeg's. Columns come first, with two fractional bits between the
 * passes. Where libjpeg-turbo's variants for different processors are not known to agree with each other, because sums
 * leave 16 bits, the block is refused. No encoder of 8-bit samples gets there.
 */
#ifndef FIC_ISLOW_H
#define FIC_ISLOW_H

#include "entropy.h"
#include "idct.h"

/* As fic_coefficient_order, but columns and rows exchanged: cell = 16 * pair + 2 * horizontal frequency + position in
 * the pair, where the pairs are vertical frequencies (0,4), (2,6), (1,3), (5,7). */
/* clang-format off */
FIC_CONSTANT uint8_t fic_islow_order[FIC_ORDER_SIZE] = {
    0, 2, 32, 16, 34, 4, 6, 36, 18, 33, 1, 35, 20, 38, 8, 10,
    40, 22, 37, 3, 48, 17, 50, 5, 39, 24, 42, 12, 14, 44, 26, 41,
    7, 52, 19, 49, 51, 21, 54, 9, 43, 28, 46, 30, 45, 11, 56, 23,
    53, 55, 25, 58, 13, 47, 15, 60, 27, 57, 59, 29, 62, 31, 61, 63,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
};
/* clang-format on */

/* libjpeg's constants, times 2^13 and rounded each. */
#define FIC_ISLOW_0_298 2446
#define FIC_ISLOW_0_390 3196
#define FIC_ISLOW_0_541 4433
#define FIC_ISLOW_0_765 6270
#define FIC_ISLOW_0_899 7373
#define FIC_ISLOW_1_175 9633
#define FIC_ISLOW_1_501 12299
#define FIC_ISLOW_1_847 15137
#define FIC_ISLOW_1_961 16069
#define FIC_ISLOW_2_053 16819
#define FIC_ISLOW_2_562 20995
#define FIC_ISLOW_3_072 25172
#define FIC_ISLOW_ONE 8192

/* The even half: c = X22 x2 + X26 x6, d = X26 x2 + X66 x6. The odd half: what in1, in3, in5, in7 contribute to the
 * outputs 0 to 3. The matrix is symmetric, except for its signs' places. */
#define FIC_ISLOW_X22 (FIC_ISLOW_0_541 + FIC_ISLOW_0_765)
#define FIC_ISLOW_X26 FIC_ISLOW_0_541
#define FIC_ISLOW_X66 (FIC_ISLOW_0_541 - FIC_ISLOW_1_847)
#define FIC_ISLOW_A1 (FIC_ISLOW_1_501 - FIC_ISLOW_0_899 - FIC_ISLOW_0_390 + FIC_ISLOW_1_175)
#define FIC_ISLOW_A3 FIC_ISLOW_1_175
#define FIC_ISLOW_A5 (FIC_ISLOW_1_175 - FIC_ISLOW_0_390)
#define FIC_ISLOW_A7 (FIC_ISLOW_1_175 - FIC_ISLOW_0_899)
#define FIC_ISLOW_B3 (FIC_ISLOW_3_072 - FIC_ISLOW_2_562 - FIC_ISLOW_1_961 + FIC_ISLOW_1_175)
#define FIC_ISLOW_B5 (FIC_ISLOW_1_175 - FIC_ISLOW_2_562)
#define FIC_ISLOW_B7 (FIC_ISLOW_1_175 - FIC_ISLOW_1_961)
#define FIC_ISLOW_C5 (FIC_ISLOW_2_053 - FIC_ISLOW_2_562 - FIC_ISLOW_0_390 + FIC_ISLOW_1_175)
#define FIC_ISLOW_C7 FIC_ISLOW_1_175
#define FIC_ISLOW_D7 (FIC_ISLOW_0_298 - FIC_ISLOW_0_899 - FIC_ISLOW_1_961 + FIC_ISLOW_1_175)

#define FIC_ISLOW_SHIFT1 11 /* 13 constant bits, 2 kept */
#define FIC_ISLOW_SHIFT2 18 /* 13 constant bits, 2 kept before, 3 of the two passes' gain of 8 */
#define FIC_ISLOW_ROUND1 (1 << (FIC_ISLOW_SHIFT1 - 1))
/* Rounding, and the level shift of 128. */
#define FIC_ISLOW_ROUND2 ((1 << (FIC_ISLOW_SHIFT2 - 1)) + (128 << FIC_ISLOW_SHIFT2))

/* Inputs of both passes stay below this, so that neither 16-bit sums of two nor 32-bit sums of eight overflow. */
#define FIC_ISLOW_LIMIT 16384

/* x[frequency] to out[position], scaled by 2^13; |x| is at most FIC_ISLOW_LIMIT. */
FIC_INLINE void fic_islow_line(const int32_t x[8], int32_t round, int32_t out[8])
{
    int32_t sum = (x[0] + x[4]) * FIC_ISLOW_ONE + round, difference = (x[0] - x[4]) * FIC_ISLOW_ONE + round;
    int32_t c = x[2] * FIC_ISLOW_X22 + x[6] * FIC_ISLOW_X26, d = x[2] * FIC_ISLOW_X26 + x[6] * FIC_ISLOW_X66;
    int32_t even[4] = {sum + c, difference + d, difference - d, sum - c};
    int32_t odd[4] = {
        x[1] * FIC_ISLOW_A1 + x[3] * FIC_ISLOW_A3 + x[5] * FIC_ISLOW_A5 + x[7] * FIC_ISLOW_A7,
        x[1] * FIC_ISLOW_A3 + x[3] * FIC_ISLOW_B3 + x[5] * FIC_ISLOW_B5 + x[7] * FIC_ISLOW_B7,
        x[1] * FIC_ISLOW_A5 + x[3] * FIC_ISLOW_B5 + x[5] * FIC_ISLOW_C5 + x[7] * FIC_ISLOW_C7,
        x[1] * FIC_ISLOW_A7 + x[3] * FIC_ISLOW_B7 + x[5] * FIC_ISLOW_C7 + x[7] * FIC_ISLOW_D7,
    };
    for (int32_t n = 0; n < 4; n++) {
        out[n] = even[n] + odd[n];
        out[7 - n] = even[n] - odd[n];
    }
}

FIC_INLINE int32_t fic_islow_outside(int32_t x)
{
    return x < -FIC_ISLOW_LIMIT || x >= FIC_ISLOW_LIMIT;
}

/* cells, quantisers: 64 each in fic_islow_order. out: 8 rows of 8 samples, stride in bytes. Returns whether it refuses
 * the block; the samples are of no use then. */
FIC_INLINE int32_t fic_islow_inverse(const int16_t *cells, const uint16_t *quantisers, uint8_t *out, int64_t stride)
{
    static const uint8_t frequency[8] = {0, 4, 2, 6, 1, 3, 5, 7}; /* in a column's cells */
    int32_t x[8], line[8], between[8][8];
    for (int32_t u = 0; u < 8; u++) {
        for (int32_t i = 0; i < 8; i++) {
            int32_t cell = (i >> 1) * 16 + 2 * u + (i & 1);
            x[frequency[i]] = (int16_t)((uint32_t)cells[cell] * quantisers[cell]);
            if (fic_islow_outside(x[frequency[i]]))
                return 1;
        }
        fic_islow_line(x, FIC_ISLOW_ROUND1, line);
        for (int32_t n = 0; n < 8; n++) {
            between[n][u] = line[n] >> FIC_ISLOW_SHIFT1;
            if (fic_islow_outside(between[n][u]))
                return 1;
        }
    }
    for (int32_t y = 0; y < 8; y++) {
        fic_islow_line(between[y], FIC_ISLOW_ROUND2, line);
        for (int32_t n = 0; n < 8; n++)
            out[y * stride + n] = fic_saturate8(line[n] >> FIC_ISLOW_SHIFT2);
    }
    return 0;
}

#endif
