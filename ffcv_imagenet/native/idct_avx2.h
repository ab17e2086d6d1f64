/* fic_idct_block with AVX2, bit for bit. Include only where simd.h defines FIC_SIMD. */
#ifndef FIC_IDCT_AVX2_H
#define FIC_IDCT_AVX2_H

#include "simd.h"

#include "idct.h"

/* One pass over eight lines: frequencies as 16-bit pairs (0,4), (2,6), (1,3), (5,7), one line per 32-bit lane. */
FIC_TARGET_AVX2 FIC_INLINE void fic_idct_pass_avx2(const __m256i in[4], int32_t round, __m256i out[8])
{
    __m256i rounding = _mm256_set1_epi32(round);
    __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(in[0], FIC_PAIR(FIC_COS4, FIC_COS4)), rounding);
    __m256i difference = _mm256_add_epi32(_mm256_madd_epi16(in[0], FIC_PAIR(FIC_COS4, -FIC_COS4)), rounding);
    __m256i c = _mm256_madd_epi16(in[1], FIC_PAIR(FIC_COS2, FIC_COS6));
    __m256i d = _mm256_madd_epi16(in[1], FIC_PAIR(FIC_COS6, -FIC_COS2));
    __m256i even[4] = {_mm256_add_epi32(sum, c), _mm256_add_epi32(difference, d), _mm256_sub_epi32(difference, d),
                       _mm256_sub_epi32(sum, c)};
    __m256i odd[4] = {
        _mm256_add_epi32(_mm256_madd_epi16(in[2], FIC_PAIR(FIC_COS1, FIC_COS3)),
                         _mm256_madd_epi16(in[3], FIC_PAIR(FIC_COS5, FIC_COS7))),
        _mm256_add_epi32(_mm256_madd_epi16(in[2], FIC_PAIR(FIC_COS3, -FIC_COS7)),
                         _mm256_madd_epi16(in[3], FIC_PAIR(-FIC_COS1, -FIC_COS5))),
        _mm256_add_epi32(_mm256_madd_epi16(in[2], FIC_PAIR(FIC_COS5, -FIC_COS1)),
                         _mm256_madd_epi16(in[3], FIC_PAIR(FIC_COS7, FIC_COS3))),
        _mm256_add_epi32(_mm256_madd_epi16(in[2], FIC_PAIR(FIC_COS7, -FIC_COS5)),
                         _mm256_madd_epi16(in[3], FIC_PAIR(FIC_COS3, -FIC_COS1))),
    };
    for (int n = 0; n < 4; n++) {
        out[n] = _mm256_add_epi32(even[n], odd[n]);
        out[7 - n] = _mm256_sub_epi32(even[n], odd[n]);
    }
}

FIC_TARGET_AVX2 FIC_INLINE void fic_idct_block_avx2(const int16_t *cells, const uint16_t *quantisers, uint8_t *out,
                                                    int64_t stride)
{
    __m256i in[4], line[8];
    for (int i = 0; i < 4; i++)
        in[i] = _mm256_mullo_epi16(_mm256_load_si256((const __m256i *)(cells + 16 * i)),
                                   _mm256_load_si256((const __m256i *)(quantisers + 16 * i)));
    fic_idct_pass_avx2(in, FIC_IDCT_ROUND1, line);

    /* Lane v of line[x] becomes lane x of the pair that holds v. */
    const __m256i pairs = _mm256_setr_epi8(0, 1, 8, 9, 4, 5, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 8, 9, 4, 5, 12,
                                           13, 2, 3, 6, 7, 10, 11, 14, 15);
    __m256i r[4];
    for (int x = 0; x < 4; x++) {
        __m256i packed = _mm256_packs_epi32(_mm256_srai_epi32(line[x], FIC_IDCT_SHIFT1),
                                            _mm256_srai_epi32(line[x + 4], FIC_IDCT_SHIFT1));
        r[x] = _mm256_shuffle_epi8(_mm256_permute4x64_epi64(packed, 0xd8), pairs);
    }
    __m256i r01lo = _mm256_unpacklo_epi32(r[0], r[1]), r01hi = _mm256_unpackhi_epi32(r[0], r[1]);
    __m256i r23lo = _mm256_unpacklo_epi32(r[2], r[3]), r23hi = _mm256_unpackhi_epi32(r[2], r[3]);
    in[0] = _mm256_unpacklo_epi64(r01lo, r23lo);
    in[1] = _mm256_unpackhi_epi64(r01lo, r23lo);
    in[2] = _mm256_unpacklo_epi64(r01hi, r23hi);
    in[3] = _mm256_unpackhi_epi64(r01hi, r23hi);
    fic_idct_pass_avx2(in, FIC_IDCT_ROUND2, line);

    for (int y = 0; y < 8; y++)
        line[y] = _mm256_srai_epi32(line[y], FIC_IDCT_SHIFT2);
    const __m256i rows = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (int y = 0; y < 8; y += 4) {
        __m256i bytes =
            _mm256_packus_epi16(_mm256_packs_epi32(line[y], line[y + 1]), _mm256_packs_epi32(line[y + 2], line[y + 3]));
        bytes = _mm256_permutevar8x32_epi32(bytes, rows);
        __m128i low = _mm256_castsi256_si128(bytes), high = _mm256_extracti128_si256(bytes, 1);
        _mm_storel_epi64((__m128i *)(out + y * stride), low);
        _mm_storel_epi64((__m128i *)(out + (y + 1) * stride), _mm_unpackhi_epi64(low, low));
        _mm_storel_epi64((__m128i *)(out + (y + 2) * stride), high);
        _mm_storel_epi64((__m128i *)(out + (y + 3) * stride), _mm_unpackhi_epi64(high, high));
    }
}

#endif
