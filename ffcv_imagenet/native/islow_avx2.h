/* fic_islow_inverse with AVX2, bit for bit. Include only where simd.h defines FIC_SIMD. */
#ifndef FIC_ISLOW_AVX2_H
#define FIC_ISLOW_AVX2_H

#include "simd.h"

#include "islow.h"

/* One pass over eight lines: frequencies as 16-bit pairs (0,4), (2,6), (1,3), (5,7), one line per 32-bit lane. */
FIC_TARGET_AVX2 FIC_INLINE void fic_islow_pass_avx2(const __m256i in[4], int32_t round, __m256i out[8])
{
    __m256i rounding = _mm256_set1_epi32(round);
    __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(in[0], FIC_PAIR(FIC_ISLOW_ONE, FIC_ISLOW_ONE)), rounding);
    __m256i difference = _mm256_add_epi32(_mm256_madd_epi16(in[0], FIC_PAIR(FIC_ISLOW_ONE, -FIC_ISLOW_ONE)), rounding);
    __m256i c = _mm256_madd_epi16(in[1], FIC_PAIR(FIC_ISLOW_X22, FIC_ISLOW_X26));
    __m256i d = _mm256_madd_epi16(in[1], FIC_PAIR(FIC_ISLOW_X26, FIC_ISLOW_X66));
    __m256i even[4] = {_mm256_add_epi32(sum, c), _mm256_add_epi32(difference, d), _mm256_sub_epi32(difference, d),
                       _mm256_sub_epi32(sum, c)};
    __m256i odd[4] = {
        _mm256_add_epi32(_mm256_madd_epi16(in[2], FIC_PAIR(FIC_ISLOW_A1, FIC_ISLOW_A3)),
                         _mm256_madd_epi16(in[3], FIC_PAIR(FIC_ISLOW_A5, FIC_ISLOW_A7))),
        _mm256_add_epi32(_mm256_madd_epi16(in[2], FIC_PAIR(FIC_ISLOW_A3, FIC_ISLOW_B3)),
                         _mm256_madd_epi16(in[3], FIC_PAIR(FIC_ISLOW_B5, FIC_ISLOW_B7))),
        _mm256_add_epi32(_mm256_madd_epi16(in[2], FIC_PAIR(FIC_ISLOW_A5, FIC_ISLOW_B5)),
                         _mm256_madd_epi16(in[3], FIC_PAIR(FIC_ISLOW_C5, FIC_ISLOW_C7))),
        _mm256_add_epi32(_mm256_madd_epi16(in[2], FIC_PAIR(FIC_ISLOW_A7, FIC_ISLOW_B7)),
                         _mm256_madd_epi16(in[3], FIC_PAIR(FIC_ISLOW_C7, FIC_ISLOW_D7))),
    };
    for (int n = 0; n < 4; n++) {
        out[n] = _mm256_add_epi32(even[n], odd[n]);
        out[7 - n] = _mm256_sub_epi32(even[n], odd[n]);
    }
}

/* The sign bit of each 16-bit lane of a limit's worth more than x says whether x is outside. */
FIC_TARGET_AVX2 FIC_INLINE __m256i fic_islow_outside_avx2(__m256i so_far, __m256i x)
{
    return _mm256_or_si256(so_far, _mm256_add_epi16(x, _mm256_set1_epi16(FIC_ISLOW_LIMIT)));
}

FIC_TARGET_AVX2 FIC_INLINE int32_t fic_islow_inverse_avx2(const int16_t *cells, const uint16_t *quantisers,
                                                          uint8_t *out, int64_t stride)
{
    __m256i in[4], line[8], outside = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++) {
        in[i] = _mm256_mullo_epi16(_mm256_load_si256((const __m256i *)(cells + 16 * i)),
                                   _mm256_load_si256((const __m256i *)(quantisers + 16 * i)));
        outside = fic_islow_outside_avx2(outside, in[i]);
    }
    fic_islow_pass_avx2(in, FIC_ISLOW_ROUND1, line);

    /* Lane u of line[y] becomes lane y of the pair that holds u. */
    const __m256i pairs = _mm256_setr_epi8(0, 1, 8, 9, 4, 5, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 8, 9, 4, 5, 12,
                                           13, 2, 3, 6, 7, 10, 11, 14, 15);
    __m256i r[4];
    for (int y = 0; y < 4; y++) {
        __m256i packed = _mm256_packs_epi32(_mm256_srai_epi32(line[y], FIC_ISLOW_SHIFT1),
                                            _mm256_srai_epi32(line[y + 4], FIC_ISLOW_SHIFT1));
        outside = fic_islow_outside_avx2(outside, packed);
        r[y] = _mm256_shuffle_epi8(_mm256_permute4x64_epi64(packed, 0xd8), pairs);
    }
    __m256i r01lo = _mm256_unpacklo_epi32(r[0], r[1]), r01hi = _mm256_unpackhi_epi32(r[0], r[1]);
    __m256i r23lo = _mm256_unpacklo_epi32(r[2], r[3]), r23hi = _mm256_unpackhi_epi32(r[2], r[3]);
    in[0] = _mm256_unpacklo_epi64(r01lo, r23lo);
    in[1] = _mm256_unpackhi_epi64(r01lo, r23lo);
    in[2] = _mm256_unpacklo_epi64(r01hi, r23hi);
    in[3] = _mm256_unpackhi_epi64(r01hi, r23hi);
    fic_islow_pass_avx2(in, FIC_ISLOW_ROUND2, line);

    /* Lane y of line[x] to byte x of row y. */
    const __m256i turn = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1, 5, 9,
                                          13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m256i half[2];
    for (int i = 0; i < 2; i++) {
        for (int x = 4 * i; x < 4 * i + 4; x++)
            line[x] = _mm256_srai_epi32(line[x], FIC_ISLOW_SHIFT2);
        half[i] = _mm256_shuffle_epi8(_mm256_packus_epi16(_mm256_packs_epi32(line[4 * i], line[4 * i + 1]),
                                                          _mm256_packs_epi32(line[4 * i + 2], line[4 * i + 3])),
                                      turn);
    }
    for (int i = 0; i < 2; i++) { /* rows 0, 1, 4, 5, then 2, 3, 6, 7 */
        __m256i rows = i ? _mm256_unpackhi_epi32(half[0], half[1]) : _mm256_unpacklo_epi32(half[0], half[1]);
        __m128i low = _mm256_castsi256_si128(rows), high = _mm256_extracti128_si256(rows, 1);
        uint8_t *to = out + 2 * i * stride;
        _mm_storel_epi64((__m128i *)to, low);
        _mm_storel_epi64((__m128i *)(to + stride), _mm_unpackhi_epi64(low, low));
        _mm_storel_epi64((__m128i *)(to + 4 * stride), high);
        _mm_storel_epi64((__m128i *)(to + 5 * stride), _mm_unpackhi_epi64(high, high));
    }
    return _mm256_movemask_epi8(outside) & (int32_t)0xaaaaaaaau ? 1 : 0;
}

#endif
