/*
 * Shrinks whole images as OpenCV's INTER_AREA does on an x86 processor, bit for bit: each output pixel is the mean of
 * the area that it covers, in single precision, lines first, every sum in the order of its pixels. See fic.h.
 */
#include <float.h>
#include <string.h>

#include "decoder.h"
#include "simd.h"

/* Along one axis: output i is the sum of `taps` inputs from start[i] on, of which the last may count nothing. */
typedef struct {
    int32_t taps;
    int32_t *start;
    float *weight; /* [taps] of each */
} area_filter;

/* Inputs that output `i` covers by more than a thousandth of one, and how much they count; returns their number. With
 * weight NULL that alone. */
static int32_t cover(int32_t size, double scale, int32_t i, int32_t *start, float *weight)
{
    double from = i * scale, to = from + scale, width = scale < size - from ? scale : size - from;
    int32_t first = (int32_t)from, last = (int32_t)to, count = 0;
    first += first < from; /* rounded up */
    last = last < size - 1 ? last : size - 1;
    first = first < last ? first : last;
    int32_t head = first - from > 1e-3, tail = to - last > 1e-3;
    *start = first - head;
    if (!weight)
        return head + last - first + tail;
    if (head)
        weight[count++] = (float)((first - from) / width);
    for (int32_t j = first; j < last; j++)
        weight[count++] = (float)(1.0 / width);
    if (tail) {
        double part = to - last < 1 ? to - last : 1;
        weight[count++] = (float)((part < width ? part : width) / width);
    }
    return count;
}

static double scale_of(int32_t size, int32_t out_size)
{
    return 1 / ((double)out_size / size);
}

static int32_t most_taps(int32_t size, int32_t out_size)
{
    int32_t most = 0, start;
    for (int32_t i = 0; i < out_size; i++) {
        int32_t taps = cover(size, scale_of(size, out_size), i, &start, NULL);
        most = taps > most ? taps : most;
    }
    return most;
}

static void fill_filter(int32_t size, int32_t out_size, area_filter *filter)
{
    memset(filter->weight, 0, (size_t)out_size * (size_t)filter->taps * sizeof(float));
    for (int32_t i = 0; i < out_size; i++)
        cover(size, scale_of(size, out_size), i, &filter->start[i], filter->weight + (int64_t)i * filter->taps);
}

static int32_t is_integer(double scale)
{
    double away = scale - (double)(int32_t)(scale + 0.5);
    return away < DBL_EPSILON && -away < DBL_EPSILON;
}

static void shrink_line_scalar(const uint8_t *line, const area_filter *filter, int32_t out_w, float *out)
{
    const float *weight = filter->weight;
    for (int32_t i = 0; i < out_w; i++, weight += filter->taps, out += 3) {
        const uint8_t *pixel = line + 3 * (int64_t)filter->start[i];
        out[0] = out[1] = out[2] = 0;
        for (int32_t j = 0; j < filter->taps; j++, pixel += 3)
            for (int32_t c = 0; c < 3; c++)
                out[c] += (float)pixel[c] * weight[j];
    }
}

FIC_INLINE void add_line(const float *line, float weight, int64_t count, float *restrict sum)
{
    for (int64_t i = 0; i < count; i++)
        sum[i] += line[i] * weight;
}

static void add_line_scalar(const float *line, float weight, int64_t count, float *sum)
{
    add_line(line, weight, count, sum);
}

static void round_line_scalar(const float *sum, int64_t from, int64_t count, uint8_t *out)
{
    for (int64_t i = from; i < count; i++) {
        /* A number of this size has no room for a fraction: halves are rounded to even. */
        int32_t value = (int32_t)(sum[i] + 0x1p23f) - 0x800000;
        out[i] = (uint8_t)(value > 255 ? 255 : value);
    }
}

#if defined(FIC_SIMD)
/* A pixel's three colours side by side; what is in the fourth lane, the next pixel overwrites. */
FIC_TARGET_AVX2 FIC_INLINE void shrink_pixels(const uint8_t *line, const area_filter *filter, int32_t taps,
                                              int32_t out_w, float *out)
{
    const float *weight = filter->weight;
    for (int32_t i = 0; i < out_w; i++, weight += taps, out += 3) {
        const uint8_t *pixel = line + 3 * (int64_t)filter->start[i];
        __m128 sum = _mm_setzero_ps();
        for (int32_t j = 0; j < taps; j++, pixel += 3) {
            int32_t bytes;
            memcpy(&bytes, pixel, 4);
            __m128 colours = _mm_cvtepi32_ps(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(bytes)));
            sum = _mm_add_ps(sum, _mm_mul_ps(colours, _mm_set1_ps(weight[j])));
        }
        _mm_storeu_ps(out, sum);
    }
}

FIC_TARGET_AVX2 static void shrink_line_avx2(const uint8_t *line, const area_filter *filter, int32_t out_w, float *out)
{
    if (filter->taps == 2) /* loops of a known length */
        shrink_pixels(line, filter, 2, out_w, out);
    else if (filter->taps == 3)
        shrink_pixels(line, filter, 3, out_w, out);
    else if (filter->taps == 4)
        shrink_pixels(line, filter, 4, out_w, out);
    else
        shrink_pixels(line, filter, filter->taps, out_w, out);
}

FIC_TARGET_AVX2 static void add_line_avx2(const float *line, float weight, int64_t count, float *sum)
{
    add_line(line, weight, count, sum);
}

FIC_TARGET_AVX2 static int64_t round_8s(const float *sum, int64_t count, uint8_t *out)
{
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m256i values = _mm256_cvtps_epi32(_mm256_loadu_ps(sum + i));
        __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(values), _mm256_extracti128_si256(values, 1));
        _mm_storel_epi64((__m128i *)(out + i), _mm_packus_epi16(words, words));
    }
    return i;
}

static void round_line_avx2(const float *sum, int64_t from, int64_t count, uint8_t *out)
{
    (void)from;
    round_line_scalar(sum, round_8s(sum, count, out), count, out);
}
#define SELECT(name) (simd ? name##_avx2 : name##_scalar)
#else
#define SELECT(name) name##_scalar
#endif

/* Take memory for `size` bytes from *at, which stays aligned. */
static void *take(uint8_t **at, size_t size)
{
    void *memory = *at;
    *at += (size + 63) / 64 * 64;
    return memory;
}

int32_t fic_shrink_area(fic_decoder *decoder, const uint8_t *rgb, int32_t width, int32_t height, int32_t out_w,
                        int32_t out_h, uint8_t *out)
{
    if (!decoder || !rgb || !out || width > 65535 || height > 65535 || out_w < 1 || out_h < 1 || out_w > width ||
        out_h > height)
        return FIC_ERROR_ARGUMENT;
    if (is_integer(scale_of(width, out_w)) && is_integer(scale_of(height, out_h)))
        return FIC_ERROR_UNSUPPORTED;
    int32_t simd = decoder->simd;
    (void)simd;
    area_filter across = {.taps = most_taps(width, out_w)}, down = {.taps = most_taps(height, out_h)};
    size_t weights_across = (size_t)out_w * (size_t)across.taps, weights_down = (size_t)out_h * (size_t)down.taps;
    size_t count = 3 * (size_t)out_w, row = 3 * (size_t)width, beyond = 3 * (size_t)across.taps + 4;
    size_t starts = ((size_t)out_w + (size_t)out_h) * sizeof(int32_t);
    size_t floats = (weights_across + weights_down + 2 * (count + 1)) * sizeof(float);
    uint8_t *memory = fic_buffer_reserve(&decoder->planes, starts + floats + row + beyond + 7 * 64);
    if (!memory)
        return FIC_ERROR_MEMORY;
    across.start = take(&memory, (size_t)out_w * sizeof(int32_t));
    down.start = take(&memory, (size_t)out_h * sizeof(int32_t));
    across.weight = take(&memory, weights_across * sizeof(float));
    down.weight = take(&memory, weights_down * sizeof(float));
    float *line = take(&memory, (count + 1) * sizeof(float)), *sum = take(&memory, (count + 1) * sizeof(float));
    uint8_t *copy = take(&memory, row + beyond); /* of a line that may be read beyond the image's end */
    fill_filter(width, out_w, &across);
    fill_filter(height, out_h, &down);
    memset(copy + row, 0, beyond);

    int32_t in_line = -1;
    size_t size = row * (size_t)height;
    for (int32_t y = 0; y < out_h; y++) {
        memset(sum, 0, count * sizeof(float));
        for (int32_t j = 0; j < down.taps; j++) {
            float weight = down.weight[(int64_t)y * down.taps + j];
            int32_t from = down.start[y] + j;
            if (weight == 0)
                break;
            if (from != in_line) {
                const uint8_t *pixels = rgb + (size_t)from * row;
                if (((size_t)from + 1) * row + beyond > size)
                    pixels = memcpy(copy, pixels, row);
                SELECT(shrink_line)(pixels, &across, out_w, line);
                in_line = from;
            }
            SELECT(add_line)(line, weight, (int64_t)count, sum);
        }
        SELECT(round_line)(sum, 0, (int64_t)count, out + (size_t)y * count);
    }
    return FIC_OK;
}
