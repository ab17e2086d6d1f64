/* fic_filter_build with AVX2, eight output samples at a time, bit for bit. Include only where simd.h defines FIC_SIMD.
 */
#ifndef FIC_FILTER_AVX2_H
#define FIC_FILTER_AVX2_H

#include "simd.h"

#include "filter.h"

#define FIC_FILTER_MAX_TAPS 64

/*
 * Whether this way may be taken: without negative weights, for sizes whose coordinates fit 32 bits, and where the sum
 * of a filter's weights stays below 2^22. Then (running * scale + half) >> n of fic_filter_next is the running sum
 * times 2^FIC_WEIGHT_BITS / sum, rounded to the nearest, halves down unless the sum is a power of 2: the quotient's
 * distance from a half is 0 or at least 2^-23, far more than what a double's rounding, or the scale's, adds to it.
 */
FIC_INLINE int32_t fic_filter_suits_avx2(const fic_filter_key *key)
{
    int64_t in = key->crop_size, out = key->out_size, reach = fic_filter_half_width(key);
    return key->filter != FIC_RESIZE_BICUBIC && (in + 1) * (out + 1) < 1 << 28 &&
           4 * reach * fic_filter_pixels(key) < 1 << 22 && fic_filter_taps(key) + 2 <= FIC_FILTER_MAX_TAPS;
}

/* floor((2 * number + 1) / (2 * divisor)) in both halves' lanes; `inverse`: 1 / divisor. */
FIC_TARGET_AVX2 FIC_INLINE __m256i fic_divide_avx2(__m256i number, __m256d inverse)
{
    const __m256d half = _mm256_set1_pd(0.5);
    __m256d low = _mm256_cvtepi32_pd(_mm256_castsi256_si128(number));
    __m256d high = _mm256_cvtepi32_pd(_mm256_extracti128_si256(number, 1));
    low = _mm256_floor_pd(_mm256_mul_pd(_mm256_add_pd(low, half), inverse));
    high = _mm256_floor_pd(_mm256_mul_pd(_mm256_add_pd(high, half), inverse));
    return _mm256_set_m128i(_mm256_cvtpd_epi32(high), _mm256_cvtpd_epi32(low));
}

/* The centres of the outputs of slots [slot, slot + 8), those after the last repeating it. */
FIC_TARGET_AVX2 FIC_INLINE __m256i fic_centres_avx2(const fic_filter_key *key, int32_t slot)
{
    const __m256i last = _mm256_set1_epi32(key->out_size - 1);
    __m256i number = _mm256_add_epi32(_mm256_set1_epi32(slot), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    number = _mm256_min_epi32(number, last);
    if (key->mirror)
        number = _mm256_sub_epi32(last, number);
    __m256i odd = _mm256_add_epi32(_mm256_add_epi32(number, number), _mm256_set1_epi32(1));
    return _mm256_mullo_epi32(odd, _mm256_set1_epi32(key->crop_size));
}

/* Fill start and used, [out_size rounded up to 8]. Returns the largest of used. */
FIC_TARGET_AVX2 FIC_INLINE int32_t fic_filter_extents_avx2(const fic_filter_key *key, int32_t *start, int32_t *used)
{
    const int32_t out = key->out_size, reach = fic_filter_half_width(key);
    const __m256d inverse = _mm256_set1_pd(0.5 / out);
    const __m256i one = _mm256_set1_epi32(1), zero = _mm256_setzero_si256(), crop = _mm256_set1_epi32(key->crop);
    __m256i widest = zero;
    for (int32_t slot = 0; slot < out; slot += 8) {
        __m256i centre = fic_centres_avx2(key, slot);
        /* Pixel j has a weight where centre - reach < (2j + 1) * out < centre + reach. */
        __m256i first = fic_divide_avx2(_mm256_sub_epi32(centre, _mm256_set1_epi32(reach + out)), inverse);
        __m256i last = fic_divide_avx2(_mm256_add_epi32(centre, _mm256_set1_epi32(reach - out - 1)), inverse);
        first = _mm256_add_epi32(_mm256_max_epi32(_mm256_add_epi32(first, one), zero), crop);
        last = _mm256_add_epi32(_mm256_min_epi32(last, _mm256_set1_epi32(key->crop_size - 1)), crop);
        if (key->subsampling == 2) {
            first = _mm256_max_epi32(_mm256_srai_epi32(_mm256_sub_epi32(first, one), 1), zero);
            last = _mm256_srai_epi32(_mm256_add_epi32(last, one), 1);
        }
        last = _mm256_min_epi32(last, _mm256_set1_epi32(key->plane_size - 1));
        first = _mm256_andnot_si256(one, first); /* the origin is even */
        __m256i pairs = _mm256_srai_epi32(_mm256_add_epi32(_mm256_sub_epi32(last, first), _mm256_set1_epi32(2)), 1);
        _mm256_storeu_si256((__m256i *)(start + slot), _mm256_sub_epi32(first, _mm256_set1_epi32(key->origin)));
        _mm256_storeu_si256((__m256i *)(used + slot), pairs);
        widest = _mm256_max_epi32(widest, pairs);
    }
    int32_t lanes[8], most = 0;
    _mm256_storeu_si256((__m256i *)lanes, widest);
    for (int32_t i = 0; i < 8; i++)
        most = lanes[i] > most ? lanes[i] : most;
    return most;
}

/* As fic_pixel_weight: `distance` and `pixel` advance to the next pixel. */
FIC_TARGET_AVX2 FIC_INLINE __m256i fic_next_pixel_avx2(const fic_filter_key *key, __m256i *distance, __m256i *pixel,
                                                       __m256i reach, __m256i whole)
{
    const __m256i last = _mm256_set1_epi32(key->crop_size - 1);
    __m256i weight = _mm256_sub_epi32(reach, _mm256_abs_epi32(*distance));
    weight = _mm256_min_epi32(_mm256_max_epi32(weight, _mm256_setzero_si256()), whole);
    weight = _mm256_and_si256(weight, _mm256_cmpeq_epi32(_mm256_min_epu32(*pixel, last), *pixel));
    *distance = _mm256_add_epi32(*distance, _mm256_set1_epi32(2 * key->out_size));
    *pixel = _mm256_add_epi32(*pixel, _mm256_set1_epi32(1));
    return weight;
}

/* The running sums of the weights of `taps` samples from `start` on, for eight outputs. */
FIC_TARGET_AVX2 FIC_INLINE void fic_running_sums_avx2(const fic_filter_key *key, __m256i centre, __m256i start,
                                                      int32_t taps, __m256i *running)
{
    const int32_t in = key->crop_size, out = key->out_size;
    const __m256i reach = _mm256_set1_epi32(fic_filter_half_width(key));
    const __m256i whole = _mm256_set1_epi32(key->filter == FIC_RESIZE_AREA ? 2 * (in < out ? in : out) : INT32_MAX);
    __m256i sample = _mm256_add_epi32(start, _mm256_set1_epi32(key->origin)), sum = _mm256_setzero_si256();
    __m256i pixel = key->subsampling == 2
                        ? _mm256_sub_epi32(_mm256_add_epi32(sample, sample), _mm256_set1_epi32(key->crop + 1))
                        : _mm256_sub_epi32(sample, _mm256_set1_epi32(key->crop));
    __m256i odd = _mm256_add_epi32(_mm256_add_epi32(pixel, pixel), _mm256_set1_epi32(1));
    __m256i distance = _mm256_sub_epi32(_mm256_mullo_epi32(odd, _mm256_set1_epi32(out)), centre);
    if (key->subsampling == 1) {
        for (int32_t tap = 0; tap < taps; tap++) {
            sum = _mm256_add_epi32(sum, fic_next_pixel_avx2(key, &distance, &pixel, reach, whole));
            running[tap] = sum;
        }
        return;
    }
    const int32_t at_edge = key->crop == 0 || key->crop + in + 3 >= 2 * key->plane_size;
    const __m256i last = _mm256_set1_epi32(key->plane_size - 1);
    __m256i before = fic_next_pixel_avx2(key, &distance, &pixel, reach, whole);
    __m256i left = fic_next_pixel_avx2(key, &distance, &pixel, reach, whole);
    for (int32_t tap = 0; tap < taps; tap++) {
        __m256i right = fic_next_pixel_avx2(key, &distance, &pixel, reach, whole);
        __m256i after = fic_next_pixel_avx2(key, &distance, &pixel, reach, whole);
        __m256i near = _mm256_add_epi32(left, right), far = _mm256_add_epi32(before, after);
        __m256i weight = _mm256_add_epi32(_mm256_add_epi32(near, far), _mm256_add_epi32(near, near));
        if (at_edge) {
            __m256i is_first = _mm256_cmpeq_epi32(sample, _mm256_setzero_si256());
            __m256i is_last = _mm256_cmpeq_epi32(sample, last);
            weight = _mm256_add_epi32(weight, _mm256_and_si256(left, is_first));
            weight = _mm256_add_epi32(weight, _mm256_and_si256(right, is_last));
            weight = _mm256_andnot_si256(_mm256_cmpgt_epi32(sample, last), weight);
            sample = _mm256_add_epi32(sample, _mm256_set1_epi32(1));
        }
        sum = _mm256_add_epi32(sum, weight);
        running[tap] = sum;
        before = right;
        left = after;
    }
}

/* Fill `weight`, [out_size][pairs][2] and room for 64 values more, from what fic_filter_extents_avx2 found. */
FIC_TARGET_AVX2 FIC_INLINE void fic_filter_weights_avx2(const fic_filter_key *key, const int32_t *start, int32_t pairs,
                                                        int16_t *weight)
{
    const __m256i one = _mm256_set1_epi32(1), low_half = _mm256_set1_epi32(0xffff);
    const __m256d unit = _mm256_set1_pd(1 << FIC_WEIGHT_BITS);
    __m256i running[FIC_FILTER_MAX_TAPS];
    for (int32_t slot = 0; slot < key->out_size; slot += 8) {
        fic_running_sums_avx2(key, fic_centres_avx2(key, slot), _mm256_loadu_si256((const __m256i *)(start + slot)),
                              2 * pairs, running);
        __m256i sum = running[2 * pairs - 1];
        __m256d scale[2], round[2];
        __m256i is_power =
            _mm256_cmpeq_epi32(_mm256_and_si256(sum, _mm256_sub_epi32(sum, one)), _mm256_setzero_si256());
        for (int half = 0; half < 2; half++) {
            __m128i of_half = half ? _mm256_extracti128_si256(sum, 1) : _mm256_castsi256_si128(sum);
            __m128i powers = half ? _mm256_extracti128_si256(is_power, 1) : _mm256_castsi256_si128(is_power);
            scale[half] = _mm256_div_pd(unit, _mm256_cvtepi32_pd(of_half));
            round[half] = _mm256_blendv_pd(_mm256_set1_pd(0.5 - 0x1p-30), _mm256_set1_pd(0.5),
                                           _mm256_castsi256_pd(_mm256_cvtepi32_epi64(powers)));
        }
        __m256i given = _mm256_setzero_si256(), pair[FIC_FILTER_MAX_TAPS / 2];
        for (int32_t i = 0; i < pairs; i++) {
            __m256i two[2];
            for (int n = 0; n < 2; n++) {
                __m256i r = running[2 * i + n];
                __m256d low = _mm256_mul_pd(_mm256_cvtepi32_pd(_mm256_castsi256_si128(r)), scale[0]);
                __m256d high = _mm256_mul_pd(_mm256_cvtepi32_pd(_mm256_extracti128_si256(r, 1)), scale[1]);
                __m256i now = _mm256_set_m128i(_mm256_cvttpd_epi32(_mm256_add_pd(high, round[1])),
                                               _mm256_cvttpd_epi32(_mm256_add_pd(low, round[0])));
                two[n] = _mm256_sub_epi32(now, given);
                given = now;
            }
            pair[i] = _mm256_or_si256(_mm256_and_si256(two[0], low_half), _mm256_slli_epi32(two[1], 16));
        }
        int16_t *to = weight + (int64_t)slot * pairs * 2;
        if (pairs <= 4) {
            for (int32_t i = pairs; i < 4; i++)
                pair[i] = _mm256_setzero_si256();
            __m256i a = _mm256_unpacklo_epi32(pair[0], pair[1]), b = _mm256_unpackhi_epi32(pair[0], pair[1]);
            __m256i c = _mm256_unpacklo_epi32(pair[2], pair[3]), d = _mm256_unpackhi_epi32(pair[2], pair[3]);
            __m256i of[4] = {_mm256_unpacklo_epi64(a, c), _mm256_unpackhi_epi64(a, c), _mm256_unpacklo_epi64(b, d),
                             _mm256_unpackhi_epi64(b, d)};
            /* In this order, so that each overwrites what the one before wrote too many. */
            for (int i = 0; i < 4; i++, to += 2 * pairs)
                _mm_storeu_si128((__m128i *)to, _mm256_castsi256_si128(of[i]));
            for (int i = 0; i < 4; i++, to += 2 * pairs)
                _mm_storeu_si128((__m128i *)to, _mm256_extracti128_si256(of[i], 1));
            continue;
        }
        for (int32_t lane = 0; lane < 8; lane++, to += 2 * pairs)
            for (int32_t i = 0; i < pairs; i++)
                memcpy(to + 2 * i, (const int32_t *)&pair[i] + lane, sizeof(int32_t));
    }
}

#endif
