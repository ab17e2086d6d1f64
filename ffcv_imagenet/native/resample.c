/* Resamples planes: the filters' tables, then the vertical and the horizontal pass. See resample.h. */
#include "resample.h"

#include <string.h>

#include "fic.h"
#include "idct.h"
#include "simd.h"
#if defined(FIC_SIMD)
#include "filter_avx2.h"
#include "idct_avx2.h"
#endif

#define VERTICAL_SHIFT (FIC_WEIGHT_BITS - FIC_FRACTION_BITS)
#define OUTPUTS_AT_ONCE 8 /* by SIMD, along either axis */

#if defined(FIC_SIMD)
FIC_TARGET_AVX2 static void build_avx2(fic_filter *filter, const fic_filter_key *key)
{
    filter->pairs = fic_filter_extents_avx2(key, filter->start, filter->used);
    fic_filter_weights_avx2(key, filter->start, filter->pairs, filter->weight);
}
#endif

/* pairs: room for so many per output. */
static void build_scalar(fic_filter *filter, const fic_filter_key *key, int32_t pairs)
{
    int32_t out = key->out_size, taps = fic_filter_taps(key);
    /* Every output sample takes the same number of steps, weights of 0 among them: nothing for a branch predictor. */
    int32_t widest = 0, pixel = 0, pixels = fic_filter_pixels(key);
    for (int32_t i = 0; i < out; i++) {
        fic_filter_output output = fic_filter_begin(key, i, pixel, pixels);
        pixel = output.pixel;
        int32_t slot = key->mirror ? out - 1 - i : i;
        int32_t start = output.first - key->origin, odd = start & 1;
        filter->start[slot] = start - odd;
        filter->used[slot] = (odd + output.count + 1) / 2;
        widest = filter->used[slot] > widest ? filter->used[slot] : widest;
        int16_t *weight = filter->weight + (int64_t)slot * pairs * 2;
        weight[0] = weight[2 * pairs - 1] = weight[2 * pairs - 2] = 0;
        for (int32_t tap = 0; tap < taps; tap++)
            weight[odd + tap] = (int16_t)fic_filter_next(key, &output);
    }
    /* Close up to the width that is really needed. */
    for (int64_t i = 1; widest < pairs && i < out; i++)
        memmove(filter->weight + i * widest * 2, filter->weight + i * pairs * 2, (size_t)widest * 2 * sizeof(int16_t));
    filter->pairs = widest;
    for (int64_t i = out; i % OUTPUTS_AT_ONCE; i++) {
        filter->start[i] = filter->start[out - 1];
        filter->used[i] = filter->used[out - 1];
        memcpy(filter->weight + i * widest * 2, filter->weight + (int64_t)(out - 1) * widest * 2,
               (size_t)widest * 2 * sizeof(int16_t));
    }
}

int32_t fic_filter_build(fic_filter *filter, const fic_filter_key *key, int32_t simd)
{
    if (filter->table.data && !memcmp(&filter->key, key, sizeof *key))
        return FIC_OK;
    int32_t pairs = fic_filter_taps(key) / 2 + 1; /* room for a weight of 0 before the first */
    size_t outputs = (size_t)(key->out_size + OUTPUTS_AT_ONCE - 1) / OUTPUTS_AT_ONCE * OUTPUTS_AT_ONCE;
    size_t heads = outputs * sizeof(int32_t), weights = (outputs * (size_t)pairs * 2 + 64) * sizeof(int16_t);
    filter->key.out_size = 0;
    uint8_t *table = fic_buffer_reserve(&filter->table, 2 * heads + weights);
    if (!table)
        return FIC_ERROR_MEMORY;
    filter->start = (int32_t *)table;
    filter->used = (int32_t *)(table + heads);
    filter->weight = (int16_t *)(table + 2 * heads);
#if defined(FIC_SIMD)
    if (simd && fic_filter_suits_avx2(key))
        build_avx2(filter, key);
    else
#endif
        build_scalar(filter, key, pairs);
    (void)simd;
    filter->key = *key;
    return FIC_OK;
}

/* One output row of one component: `width` samples with FIC_FRACTION_BITS. */
static void vertical_scalar(const fic_source *source, const fic_filter *filter, int32_t y, int16_t *row)
{
    const int16_t *weight = filter->weight + (int64_t)y * filter->pairs * 2;
    for (int32_t x = 0; x < source->width; x++) {
        int32_t sum = 1 << (VERTICAL_SHIFT - 1);
        for (int32_t i = 0; i < 2 * filter->used[y]; i++) {
            int32_t line = filter->start[y] + i;
            if (line < source->height)
                sum += weight[i] * source->samples[(int64_t)line * source->stride + x];
        }
        row[x] = (int16_t)(sum >> VERTICAL_SHIFT);
    }
}

static int32_t horizontal_scalar(const int16_t *row, int32_t width, const fic_filter *filter, int32_t x)
{
    const int16_t *weight = filter->weight + (int64_t)x * filter->pairs * 2;
    int32_t start = filter->start[x], sum = 1 << (FIC_WEIGHT_BITS - 1);
    for (int32_t i = 0; i < 2 * filter->used[x] && start + i < width; i++)
        sum += weight[i] * row[start + i];
    return sum >> FIC_WEIGHT_BITS;
}

static int32_t resample_scalar(const fic_resampling *task, fic_resampling_scratch *scratch, uint8_t *out)
{
    int32_t out_w = task->horizontal[0]->key.out_size, out_h = task->vertical[0]->key.out_size;
    size_t widest = 0;
    for (int32_t c = 0; c < task->num_components; c++)
        widest = (size_t)task->source[c].width > widest ? (size_t)task->source[c].width : widest;
    int16_t *rows = fic_buffer_reserve(&scratch->rows, 3 * widest * sizeof(int16_t));
    if (!rows)
        return FIC_ERROR_MEMORY;
    for (int32_t y = 0; y < out_h; y++) {
        for (int32_t c = 0; c < task->num_components; c++)
            vertical_scalar(&task->source[c], task->vertical[c], y, rows + (size_t)c * widest);
        for (int32_t x = 0; x < out_w; x++, out += 3) {
            int32_t s[3] = {0, 0, 0};
            for (int32_t c = 0; c < task->num_components; c++)
                s[c] = horizontal_scalar(rows + (size_t)c * widest, task->source[c].width, task->horizontal[c], x);
            fic_to_rgb(task->colour, s);
            for (int32_t c = 0; c < 3; c++)
                out[c] = (uint8_t)s[c];
        }
    }
    return FIC_OK;
}

#if defined(FIC_SIMD)

/* Eight rows of 16 samples -> per pair of samples one vector with a lane for each row. */
FIC_TARGET_AVX2 FIC_INLINE void transpose_pairs(__m256i a[8], __m256i *columns)
{
    __m256i b[8];
    for (int i = 0; i < 8; i += 2) {
        b[i] = _mm256_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm256_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        a[i] = _mm256_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm256_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm256_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm256_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        _mm256_store_si256(columns + i, _mm256_permute2x128_si256(a[i], a[i + 4], 0x20));
        _mm256_store_si256(columns + i + 4, _mm256_permute2x128_si256(a[i], a[i + 4], 0x31));
    }
}

/* What the lines of an output row add to 32 samples of it. */
FIC_TARGET_AVX2 FIC_INLINE void add_lines(const __m256i *line, const int16_t *weight, int32_t pairs, __m256i sum[4])
{
    for (int32_t j = 0; j < pairs; j++, line += 4) {
        int32_t both;
        memcpy(&both, weight + 2 * j, sizeof both);
        const __m256i w = _mm256_set1_epi32(both);
        for (int part = 0; part < 4; part++)
            sum[part] = _mm256_add_epi32(sum[part], _mm256_madd_epi16(line[part], w));
    }
}

/*
 * vertical_scalar for output rows [y, y + OUTPUTS_AT_ONCE), those after the last repeating it, transposed. Filters
 * start at even lines, so the output rows share pairs of lines: `lines` (4 vectors a pair) takes 32 samples of each
 * pair as 16-bit neighbours.
 */
FIC_TARGET_AVX2 static void vertical_avx2(const fic_source *source, const fic_filter *filter, int32_t y, __m256i *lines,
                                          __m256i *columns)
{
    const int16_t *weight[OUTPUTS_AT_ONCE];
    int32_t from[OUTPUTS_AT_ONCE], used[OUTPUTS_AT_ONCE], top = INT32_MAX, bottom = 0;
    for (int32_t i = 0; i < OUTPUTS_AT_ONCE; i++) {
        weight[i] = filter->weight + (int64_t)(y + i) * filter->pairs * 2;
        from[i] = filter->start[y + i] / 2;
        used[i] = filter->used[y + i];
        top = from[i] < top ? from[i] : top;
        bottom = from[i] + used[i] > bottom ? from[i] + used[i] : bottom;
    }
    const __m256i round = _mm256_set1_epi32(1 << (VERTICAL_SHIFT - 1));
    for (int32_t x = 0; x < source->width; x += 32, columns += 16) {
        for (int32_t pair = top; pair < bottom; pair++) {
            const uint8_t *line = source->samples + 2 * pair * (int64_t)source->stride + x;
            /* The last line may lie below the plane, with weight 0. */
            const uint8_t *below = 2 * pair + 1 < source->height ? line + source->stride : line;
            __m256i *to = lines + (int64_t)(pair - top) * 4;
            for (int half = 0; half < 2; half++) {
                __m256i a = _mm256_cvtepu8_epi16(_mm_load_si128((const __m128i *)(line + 16 * half)));
                __m256i b = _mm256_cvtepu8_epi16(_mm_load_si128((const __m128i *)(below + 16 * half)));
                _mm256_store_si256(to + 2 * half, _mm256_unpacklo_epi16(a, b));
                _mm256_store_si256(to + 2 * half + 1, _mm256_unpackhi_epi16(a, b));
            }
        }
        __m256i rows[2][OUTPUTS_AT_ONCE];
        for (int32_t i = 0; i < OUTPUTS_AT_ONCE; i++) {
            __m256i sum[4] = {round, round, round, round};
            const __m256i *line = lines + (int64_t)(from[i] - top) * 4;
            switch (used[i]) { /* the usual heights get loops of constant length */
            case 1:
                add_lines(line, weight[i], 1, sum);
                break;
            case 2:
                add_lines(line, weight[i], 2, sum);
                break;
            case 3:
                add_lines(line, weight[i], 3, sum);
                break;
            case 4:
                add_lines(line, weight[i], 4, sum);
                break;
            default:
                add_lines(line, weight[i], used[i], sum);
            }
            for (int half = 0; half < 2; half++)
                rows[half][i] = _mm256_packs_epi32(_mm256_srai_epi32(sum[2 * half], VERTICAL_SHIFT),
                                                   _mm256_srai_epi32(sum[2 * half + 1], VERTICAL_SHIFT));
        }
        transpose_pairs(rows[0], columns);
        transpose_pairs(rows[1], columns + 8);
    }
}

/* Four output columns, from x on, of `planes` components that share a filter; a vector's lanes are the eight rows. */
FIC_TARGET_AVX2 FIC_INLINE void horizontal_of(const __m256i *const *columns, int32_t planes, const fic_filter *filter,
                                              int32_t pairs, int32_t x, __m256i out[][2])
{
    const __m256i round = _mm256_set1_epi32(1 << (FIC_WEIGHT_BITS - 1));
    const int16_t *weight = filter->weight + (int64_t)x * pairs * 2;
    __m256i done[2][4];
    for (int i = 0; i < 4; i++, weight += 2 * pairs) {
        /* A vector holds two samples. */
        const __m256i *from[2];
        for (int32_t c = 0; c < planes; c++)
            from[c] = (const __m256i *)((const __m128i *)columns[c] + filter->start[x + i]);
        __m256i sum[2] = {round, round};
        for (int32_t j = 0; j < pairs; j++) {
            int32_t both;
            memcpy(&both, weight + 2 * j, sizeof both);
            const __m256i w = _mm256_set1_epi32(both);
            for (int32_t c = 0; c < planes; c++)
                sum[c] = _mm256_add_epi32(sum[c], _mm256_madd_epi16(from[c][j], w));
        }
        for (int32_t c = 0; c < planes; c++) {
            done[c][i] = _mm256_srai_epi32(sum[c], FIC_WEIGHT_BITS);
            if (i & 1)
                out[c][i / 2] = _mm256_packs_epi32(done[c][i - 1], done[c][i]);
        }
    }
}

/* The usual widths get loops of constant length. */
FIC_TARGET_AVX2 FIC_INLINE void horizontal_avx2(const __m256i *const *columns, int32_t planes, const fic_filter *filter,
                                                int32_t x, __m256i out[][2])
{
    switch (filter->pairs) {
    case 2:
        horizontal_of(columns, planes, filter, 2, x, out);
        break;
    case 3:
        horizontal_of(columns, planes, filter, 3, x, out);
        break;
    case 4:
        horizontal_of(columns, planes, filter, 4, x, out);
        break;
    default:
        horizontal_of(columns, planes, filter, filter->pairs, x, out);
    }
}

/* Fractional samples of four columns -> bytes, a 32-bit lane for each row. */
FIC_TARGET_AVX2 FIC_INLINE __m256i round_columns(const __m256i s[2])
{
    const __m256i half = _mm256_set1_epi16(FIC_FINAL_ROUND);
    const __m256i by_row = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1, 5, 9,
                                            13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m256i a = _mm256_srai_epi16(_mm256_adds_epi16(s[0], half), FIC_FRACTION_BITS);
    __m256i b = _mm256_srai_epi16(_mm256_adds_epi16(s[1], half), FIC_FRACTION_BITS);
    return _mm256_shuffle_epi8(_mm256_packus_epi16(a, b), by_row);
}

FIC_TARGET_AVX2 FIC_INLINE void ycc_to_rgb(__m256i s[3][2])
{
    const __m256i zero = _mm256_set1_epi16(FIC_CHROMA_ZERO);
    for (int i = 0; i < 2; i++) {
        __m256i luma = s[0][i], cb = _mm256_sub_epi16(s[1][i], zero), cr = _mm256_sub_epi16(s[2][i], zero);
        __m256i g = _mm256_add_epi16(_mm256_mulhrs_epi16(cb, _mm256_set1_epi16(FIC_CB_TO_G)),
                                     _mm256_mulhrs_epi16(cr, _mm256_set1_epi16(FIC_CR_TO_G)));
        __m256i r = _mm256_add_epi16(cr, _mm256_mulhrs_epi16(cr, _mm256_set1_epi16(FIC_CR_TO_R)));
        __m256i b = _mm256_add_epi16(_mm256_add_epi16(cb, cb), _mm256_mulhrs_epi16(cb, _mm256_set1_epi16(FIC_CB_TO_B)));
        s[0][i] = _mm256_adds_epi16(luma, r);
        s[1][i] = _mm256_adds_epi16(luma, g);
        s[2][i] = _mm256_adds_epi16(luma, b);
    }
}

/* Eight rows of four pixels: 12 bytes each, and 4 bytes of anything after them. */
FIC_TARGET_AVX2 FIC_INLINE void interleave_rgb(__m256i r, __m256i g, __m256i b, __m128i row[8])
{
    const __m256i order = _mm256_setr_epi8(0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11, -1, -1, -1, -1, 0, 4, 8, 1, 5, 9, 2, 6,
                                           10, 3, 7, 11, -1, -1, -1, -1);
    __m256i rg[2] = {_mm256_unpacklo_epi32(r, g), _mm256_unpackhi_epi32(r, g)};
    __m256i bb[2] = {_mm256_unpacklo_epi32(b, b), _mm256_unpackhi_epi32(b, b)};
    for (int i = 0; i < 2; i++) {
        __m256i even = _mm256_shuffle_epi8(_mm256_unpacklo_epi64(rg[i], bb[i]), order);
        __m256i odd = _mm256_shuffle_epi8(_mm256_unpackhi_epi64(rg[i], bb[i]), order);
        row[2 * i] = _mm256_castsi256_si128(even);
        row[2 * i + 1] = _mm256_castsi256_si128(odd);
        row[2 * i + 4] = _mm256_extracti128_si256(even, 1);
        row[2 * i + 5] = _mm256_extracti128_si256(odd, 1);
    }
}

FIC_TARGET_AVX2 static int32_t resample_avx2(const fic_resampling *task, fic_resampling_scratch *scratch, uint8_t *out)
{
    int32_t out_w = task->horizontal[0]->key.out_size, out_h = task->vertical[0]->key.out_size;
    int64_t widest = 0, highest = 0, most_pairs = 0;
    for (int32_t c = 0; c < task->num_components; c++) {
        widest = task->source[c].width > widest ? task->source[c].width : widest;
        highest = task->source[c].height > highest ? task->source[c].height : highest;
        most_pairs = task->horizontal[c]->pairs > most_pairs ? task->horizontal[c]->pairs : most_pairs;
    }
    int64_t pitch = (widest + 31) / 32 * 32;
    int64_t column_pitch = pitch / 2 + most_pairs; /* zero weights may follow the last sample */
    __m256i *line_pairs = fic_buffer_reserve(&scratch->rows, (size_t)(highest + 1) / 2 * 4 * sizeof(__m256i));
    size_t columns_size = (size_t)(3 * column_pitch) * sizeof(__m256i), had = scratch->columns.size;
    __m256i *columns = fic_buffer_reserve(&scratch->columns, columns_size);
    if (!line_pairs || !columns)
        return FIC_ERROR_MEMORY;
    if (scratch->columns.size != had)
        memset(columns, 0, scratch->columns.size);

    for (int32_t y = 0; y < out_h; y += OUTPUTS_AT_ONCE) {
        for (int32_t c = 0; c < task->num_components; c++)
            vertical_avx2(&task->source[c], task->vertical[c], y, line_pairs, columns + c * column_pitch);
        const __m256i *first[1] = {columns};
        const __m256i *others[2] = {columns + column_pitch, columns + 2 * column_pitch};
        int32_t lines = out_h - y < OUTPUTS_AT_ONCE ? out_h - y : OUTPUTS_AT_ONCE;
        uint8_t *to = out + (int64_t)y * out_w * 3;
        for (int32_t x = 0; x < out_w; x += 4, to += 12) {
            __m256i s[3][2], bytes[3];
            horizontal_avx2(first, 1, task->horizontal[0], x, s);
            if (task->colour == FIC_COLOUR_GREY) {
                bytes[0] = bytes[1] = bytes[2] = round_columns(s[0]);
            } else {
                horizontal_avx2(others, 2, task->horizontal[1], x, s + 1);
                if (task->colour == FIC_COLOUR_YCC)
                    ycc_to_rgb(s);
                for (int32_t c = 0; c < 3; c++)
                    bytes[c] = round_columns(s[c]);
            }
            __m128i row[8];
            interleave_rgb(bytes[0], bytes[1], bytes[2], row);
            if (x + 6 <= out_w && lines == OUTPUTS_AT_ONCE) {
                /* The next pixels overwrite the four bytes too many. */
                for (int32_t i = 0; i < OUTPUTS_AT_ONCE; i++)
                    _mm_storeu_si128((__m128i *)(to + (int64_t)i * out_w * 3), row[i]);
            } else {
                size_t size = (size_t)(out_w - x < 4 ? out_w - x : 4) * 3;
                uint8_t last[OUTPUTS_AT_ONCE][16];
                for (int32_t i = 0; i < OUTPUTS_AT_ONCE; i++)
                    _mm_storeu_si128((__m128i *)last[i], row[i]);
                for (int32_t i = 0; i < lines; i++)
                    memcpy(to + (int64_t)i * out_w * 3, last[i], size);
            }
        }
    }
    return FIC_OK;
}

#endif

int32_t fic_resample(const fic_resampling *task, fic_resampling_scratch *scratch, int32_t simd, uint8_t *out)
{
#if defined(FIC_SIMD)
    if (simd)
        return resample_avx2(task, scratch, out);
#else
    (void)simd;
#endif
    return resample_scalar(task, scratch, out);
}

#if defined(FIC_SIMD)
/* Sixteen pixels at a time: of each of the three vectors the bytes of one colour, in place. Returns the pixels done. */
FIC_TARGET_AVX2 static int32_t split_rgb_avx2(const uint8_t *rgb, int32_t width, uint8_t *const out[3])
{
    __m128i pick[3][3];
    for (int c = 0; c < 3; c++)
        for (int part = 0; part < 3; part++) {
            int8_t order[16];
            for (int i = 0; i < 16; i++) {
                int byte = 3 * i + c - 16 * part;
                order[i] = (int8_t)(byte >= 0 && byte < 16 ? byte : -1);
            }
            pick[c][part] = _mm_loadu_si128((const __m128i *)order);
        }
    int32_t x = 0;
    for (; x + 16 <= width; x += 16, rgb += 48) {
        __m128i a = _mm_loadu_si128((const __m128i *)rgb), b = _mm_loadu_si128((const __m128i *)(rgb + 16));
        __m128i d = _mm_loadu_si128((const __m128i *)(rgb + 32));
        for (int c = 0; c < 3; c++)
            _mm_storeu_si128((__m128i *)(out[c] + x), _mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(a, pick[c][0]),
                                                                                _mm_shuffle_epi8(b, pick[c][1])),
                                                                   _mm_shuffle_epi8(d, pick[c][2])));
    }
    return x;
}
#endif

void fic_split_rgb(const uint8_t *rgb, int32_t width, uint8_t *r, uint8_t *g, uint8_t *b, int32_t simd)
{
    int32_t x = 0;
#if defined(FIC_SIMD)
    uint8_t *const out[3] = {r, g, b};
    if (simd)
        x = split_rgb_avx2(rgb, width, out);
#else
    (void)simd;
#endif
    for (; x < width; x++) {
        r[x] = rgb[3 * x];
        g[x] = rgb[3 * x + 1];
        b[x] = rgb[3 * x + 2];
    }
}
