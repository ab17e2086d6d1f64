/*
 * Dequantisation and the 8x8 inverse DCT (T.81 A.3.3), in integers.
 *
 * Each pass is the even/odd decomposition of the one-dimensional transform; the odd half is a 4x4 matrix product, so
 * every constant is rounded once (14 bits) and every output once. Three fractional bits are kept between the passes.
 * All arithmetic is exact or wraps as the 16- and 32-bit lanes of SIMD do, so that the variants agree bit for bit even
 * on coefficients that no encoder writes.
 */
#ifndef FIC_IDCT_H
#define FIC_IDCT_H

#include "entropy.h"

/* sqrt(2) * cos(n * pi / 16) * 2^14 */
#define FIC_COS1 22725
#define FIC_COS2 21407
#define FIC_COS3 19266
#define FIC_COS4 16384
#define FIC_COS5 12873
#define FIC_COS6 8867
#define FIC_COS7 4520

#define FIC_IDCT_SHIFT1 11 /* 14 constant bits, 3 kept */
#define FIC_IDCT_SHIFT2 20 /* 14 constant bits, 3 kept before, 3 of the two passes' gain of 8 */
#define FIC_IDCT_ROUND1 (1 << (FIC_IDCT_SHIFT1 - 1))
/* Rounding, and the level shift of 128. */
#define FIC_IDCT_ROUND2 ((1 << (FIC_IDCT_SHIFT2 - 1)) + (128 << FIC_IDCT_SHIFT2))

FIC_INLINE int32_t fic_saturate16(int32_t x)
{
    return x < -32768 ? -32768 : x > 32767 ? 32767 : x;
}

FIC_INLINE uint8_t fic_saturate8(int32_t x)
{
    return (uint8_t)(x < 0 ? 0 : x > 255 ? 255 : x);
}

/* x[frequency] to out[position], scaled by 2^14; sums wrap. */
FIC_INLINE void fic_idct_line(const int16_t x[8], uint32_t round, int32_t out[8])
{
    int32_t x0 = x[0], x1 = x[1], x2 = x[2], x3 = x[3], x4 = x[4], x5 = x[5], x6 = x[6], x7 = x[7];
#define FIC_MUL(a, b) ((uint32_t)((a) * (b)))
    uint32_t sum = FIC_MUL(x0, FIC_COS4) + FIC_MUL(x4, FIC_COS4) + round;
    uint32_t difference = FIC_MUL(x0, FIC_COS4) - FIC_MUL(x4, FIC_COS4) + round;
    uint32_t c = FIC_MUL(x2, FIC_COS2) + FIC_MUL(x6, FIC_COS6);
    uint32_t d = FIC_MUL(x2, FIC_COS6) - FIC_MUL(x6, FIC_COS2);
    uint32_t even[4] = {sum + c, difference + d, difference - d, sum - c};
    uint32_t odd[4] = {
        FIC_MUL(x1, FIC_COS1) + FIC_MUL(x3, FIC_COS3) + FIC_MUL(x5, FIC_COS5) + FIC_MUL(x7, FIC_COS7),
        FIC_MUL(x1, FIC_COS3) - FIC_MUL(x3, FIC_COS7) - FIC_MUL(x5, FIC_COS1) - FIC_MUL(x7, FIC_COS5),
        FIC_MUL(x1, FIC_COS5) - FIC_MUL(x3, FIC_COS1) + FIC_MUL(x5, FIC_COS7) + FIC_MUL(x7, FIC_COS3),
        FIC_MUL(x1, FIC_COS7) - FIC_MUL(x3, FIC_COS5) + FIC_MUL(x5, FIC_COS3) - FIC_MUL(x7, FIC_COS1),
    };
#undef FIC_MUL
    for (int32_t n = 0; n < 4; n++) {
        out[n] = (int32_t)(even[n] + odd[n]);
        out[7 - n] = (int32_t)(even[n] - odd[n]);
    }
}

/* One sample value for a block that has only a DC coefficient; the same bits as the whole transform. */
FIC_INLINE uint8_t fic_idct_dc(int16_t dc, uint16_t quantiser)
{
    int32_t x = fic_saturate16((int16_t)((uint32_t)dc * quantiser) * 8);
    return fic_saturate8((x * FIC_COS4 + FIC_IDCT_ROUND2) >> FIC_IDCT_SHIFT2);
}

/* Eight samples, the first in the lowest byte; `out` is aligned to 8. */
FIC_INLINE void fic_store_samples(uint8_t *out, uint64_t samples)
{
#if defined(__CUDACC__)
    *(uint64_t *)out = samples;
#else
    for (int32_t i = 0; i < 8; i++)
        out[i] = (uint8_t)(samples >> 8 * i);
#endif
}

/* cells, quantisers: 64 each in the order of fic_coefficient_order. out: 8 rows of 8 samples, stride in bytes. */
FIC_INLINE void fic_idct_block(const int16_t *cells, const uint16_t *quantisers, uint8_t *out, int64_t stride)
{
    int16_t x[8], between[8][8];
    uint64_t rows[8] = {0};
    int32_t line[8];
    for (int32_t v = 0; v < 8; v++) {
        for (int32_t i = 0; i < 8; i++) {
            /* Pairs (0,4), (2,6), (1,3), (5,7): frequency u is at cell 16 * pair + 2 * v + position in the pair. */
            int32_t cell = (i >> 1) * 16 + 2 * v + (i & 1);
            int32_t u = i == 0 ? 0 : i == 1 ? 4 : i == 2 ? 2 : i == 3 ? 6 : i == 4 ? 1 : i == 5 ? 3 : i == 6 ? 5 : 7;
            x[u] = (int16_t)((uint32_t)cells[cell * FIC_CELL_STRIDE] * quantisers[cell]);
        }
        fic_idct_line(x, FIC_IDCT_ROUND1, line);
        for (int32_t n = 0; n < 8; n++)
            between[n][v] = (int16_t)fic_saturate16(line[n] >> FIC_IDCT_SHIFT1);
    }
    for (int32_t n = 0; n < 8; n++) {
        fic_idct_line(between[n], FIC_IDCT_ROUND2, line);
        for (int32_t y = 0; y < 8; y++)
            rows[y] |= (uint64_t)fic_saturate8(fic_saturate16(line[y] >> FIC_IDCT_SHIFT2)) << 8 * n;
    }
    for (int32_t y = 0; y < 8; y++)
        fic_store_samples(out + y * stride, rows[y]);
}

#endif
