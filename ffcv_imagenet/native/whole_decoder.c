/*
 * Decodes whole JPEGs to the pixels that libjpeg-turbo makes of them, bit for bit: grey and YCbCr, 4:4:4, 4:2:2 and
 * 4:2:0. See fic.h. Rows of MCUs are decoded in turn into two buffers, and their pixels made at once: those of a row
 * of samples need the chroma above and below it.
 */
#include <string.h>

#include "decoder.h"
#include "islow.h"
#include "simd.h"

typedef struct {
    uint8_t *samples; /* two rows of MCUs */
    int64_t stride;
    int32_t lines; /* of samples in a row of MCUs: 8 or 16 */
    int32_t width, height;
} component_rows;

typedef struct {
    component_rows component[3];
    int32_t width, height;
    fic_factors subsampling;
    int32_t grey;
    uint16_t *sums;   /* of chroma samples above each other, one more at either end */
    uint8_t *wide[2]; /* a line of chroma at the luma's resolution */
} whole_image;

static const uint8_t *line_of(const component_rows *component, int32_t y)
{
    int32_t slot = y / component->lines & 1, line = y % component->lines;
    return component->samples + (slot * component->lines + line) * component->stride;
}

/* libjpeg's "fancy" upsampling: 3/4 of the nearer sample and 1/4 of the farther, the edges repeated. */
FIC_INLINE void widen(uint16_t *restrict sums, int32_t count, int32_t round_even, int32_t round_odd, int32_t shift,
                      uint8_t *restrict out)
{
    sums[0] = sums[1];
    sums[count + 1] = sums[count];
    for (int32_t i = 0; i < count; i++) {
        uint16_t near = (uint16_t)(3 * sums[i + 1]);
        out[2 * i] = (uint8_t)((uint16_t)(near + sums[i] + round_even) >> shift);
        out[2 * i + 1] = (uint8_t)((uint16_t)(near + sums[i + 2] + round_odd) >> shift);
    }
}

FIC_INLINE void widen_line(const uint8_t *line, int32_t count, uint16_t *restrict sums, uint8_t *restrict out)
{
    for (int32_t i = 0; i < count; i++)
        sums[i + 1] = line[i];
    widen(sums, count, 1, 2, 2, out);
}

FIC_INLINE void widen_lines(const uint8_t *near, const uint8_t *far, int32_t count, uint16_t *restrict sums,
                            uint8_t *restrict out)
{
    for (int32_t i = 0; i < count; i++)
        sums[i + 1] = (uint16_t)(3 * near[i] + far[i]);
    widen(sums, count, 8, 7, 4, out);
}

/* libjpeg's conversion: T.871's constants, 16 fractional bits. */
#define CR_TO_R 91881
#define CB_TO_G -22554
#define CR_TO_G -46802
#define CB_TO_B 116130
#define COLOUR_ROUND 32768

static void convert_scalar(const uint8_t *const line[3], int32_t from, int32_t width, uint8_t *out)
{
    for (int32_t x = from; x < width; x++) {
        int32_t luma = line[0][x], cb = line[1][x] - 128, cr = line[2][x] - 128;
        out[3 * x] = fic_saturate8(luma + ((CR_TO_R * cr + COLOUR_ROUND) >> 16));
        out[3 * x + 1] = fic_saturate8(luma + ((CB_TO_G * cb + CR_TO_G * cr + COLOUR_ROUND) >> 16));
        out[3 * x + 2] = fic_saturate8(luma + ((CB_TO_B * cb + COLOUR_ROUND) >> 16));
    }
}

static void widen_line_scalar(const uint8_t *line, int32_t count, uint16_t *sums, uint8_t *out)
{
    widen_line(line, count, sums, out);
}

static void widen_lines_scalar(const uint8_t *near, const uint8_t *far, int32_t count, uint16_t *sums, uint8_t *out)
{
    widen_lines(near, far, count, sums, out);
}

#if defined(FIC_SIMD)
FIC_TARGET_AVX2 static void widen_line_avx2(const uint8_t *line, int32_t count, uint16_t *sums, uint8_t *out)
{
    widen_line(line, count, sums, out);
}

FIC_TARGET_AVX2 static void widen_lines_avx2(const uint8_t *near, const uint8_t *far, int32_t count, uint16_t *sums,
                                             uint8_t *out)
{
    widen_lines(near, far, count, sums, out);
}

FIC_TARGET_AVX2 FIC_INLINE __m256i load_16(const uint8_t *from)
{
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)from));
}

/* Sixteen pixels: 48 bytes, and four of anything after them. The constants' integer parts are added. */
FIC_TARGET_AVX2 FIC_INLINE void convert_16(const uint8_t *const line[3], int32_t x, uint8_t *out)
{
    const __m256i zero = _mm256_set1_epi16(128), one = _mm256_set1_epi16(1);
    const __m256i order = _mm256_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1, 0, 1, 2, 4, 5, 6, 8,
                                           9, 10, 12, 13, 14, -1, -1, -1, -1);
    __m256i luma = load_16(line[0] + x);
    __m256i cb = _mm256_sub_epi16(load_16(line[1] + x), zero), cr = _mm256_sub_epi16(load_16(line[2] + x), zero);
    __m256i twice_cr = _mm256_add_epi16(cr, cr), twice_cb = _mm256_add_epi16(cb, cb);
    __m256i r = _mm256_mulhi_epi16(twice_cr, _mm256_set1_epi16(CR_TO_R - 65536)); /* half of it, rounded, is the rest */
    r = _mm256_add_epi16(_mm256_add_epi16(luma, cr), _mm256_srai_epi16(_mm256_add_epi16(r, one), 1));
    __m256i b = _mm256_mulhrs_epi16(cb, _mm256_set1_epi16((CB_TO_B - 131072) / 2));
    b = _mm256_add_epi16(_mm256_add_epi16(luma, twice_cb), b);
    const __m256i to_g = FIC_PAIR(CB_TO_G, CR_TO_G + 65536), half = _mm256_set1_epi32(COLOUR_ROUND);
    __m256i low = _mm256_madd_epi16(_mm256_unpacklo_epi16(cb, cr), to_g);
    __m256i high = _mm256_madd_epi16(_mm256_unpackhi_epi16(cb, cr), to_g);
    __m256i g = _mm256_packs_epi32(_mm256_srai_epi32(_mm256_add_epi32(low, half), 16),
                                   _mm256_srai_epi32(_mm256_add_epi32(high, half), 16));
    g = _mm256_add_epi16(_mm256_sub_epi16(luma, cr), g);

    __m256i rg = _mm256_packus_epi16(r, g);
    rg = _mm256_unpacklo_epi8(rg, _mm256_srli_si256(rg, 8));
    b = _mm256_unpacklo_epi8(_mm256_packus_epi16(b, b), _mm256_setzero_si256());
    __m256i first = _mm256_shuffle_epi8(_mm256_unpacklo_epi16(rg, b), order);
    __m256i second = _mm256_shuffle_epi8(_mm256_unpackhi_epi16(rg, b), order);
    _mm_storeu_si128((__m128i *)out, _mm256_castsi256_si128(first));
    _mm_storeu_si128((__m128i *)(out + 12), _mm256_castsi256_si128(second));
    _mm_storeu_si128((__m128i *)(out + 24), _mm256_extracti128_si256(first, 1));
    _mm_storeu_si128((__m128i *)(out + 36), _mm256_extracti128_si256(second, 1));
}

/* The lines have 16 samples more than a multiple of 16 that is at least the width. */
FIC_TARGET_AVX2 static void convert_avx2(const uint8_t *const line[3], int32_t from, int32_t width, uint8_t *out)
{
    int32_t x = from;
    for (; x + 18 <= width; x += 16)
        convert_16(line, x, out + 3 * (int64_t)x);
    for (; x < width; x += 16) {
        uint8_t last[52];
        convert_16(line, x, last);
        memcpy(out + 3 * (int64_t)x, last, (size_t)(width - x < 16 ? width - x : 16) * 3);
    }
}
#define SELECT(name) (simd ? name##_avx2 : name##_scalar)
#else
#define SELECT(name) name##_scalar
#endif

/* A line of a chroma component at the luma's resolution. */
static const uint8_t *chroma_line(const whole_image *image, int32_t c, int32_t y, int32_t simd)
{
    (void)simd;
    const component_rows *component = &image->component[c];
    uint8_t *wide = image->wide[c - 1];
    if (image->grey || image->subsampling.x == 1)
        return image->grey ? wide : line_of(component, y);
    if (image->subsampling.y == 1) {
        SELECT(widen_line)(line_of(component, y), component->width, image->sums, wide);
    } else {
        int32_t near = y >> 1, far = near + (y & 1 ? 1 : -1);
        far = far < 0 ? 0 : far < component->height ? far : component->height - 1;
        SELECT(widen_lines)
        (line_of(component, near), line_of(component, far), component->width, image->sums, wide);
    }
    return wide;
}

static int32_t place_rows(fic_decoder *decoder, whole_image *image)
{
    const fic_jpeg_header *header = &decoder->header;
    fic_scan *scan = &decoder->scan;
    image->width = header->width;
    image->height = header->height;
    image->subsampling = (fic_factors){header->subsampling_x, header->subsampling_y};
    image->grey = header->colour == FIC_COLOUR_GREY;
    size_t offset[3], size = 0, wide = ((size_t)header->width + 63) / 32 * 32;
    for (int32_t c = 0; c < header->num_components; c++) {
        fic_factors blocks = fic_blocks_per_mcu(header, c), pixels = fic_pixels_per_sample(header, c);
        component_rows *component = &image->component[c];
        scan->plane[c].block_x = 0;
        scan->plane[c].blocks_w = header->mcus_per_row * blocks.x;
        scan->plane[c].blocks_h = blocks.y;
        scan->plane[c].stride = 8 * scan->plane[c].blocks_w / 32 * 32 + 32;
        component->stride = scan->plane[c].stride;
        component->lines = 8 * blocks.y;
        component->width = (header->width + pixels.x - 1) / pixels.x;
        component->height = (header->height + pixels.y - 1) / pixels.y;
        offset[c] = size;
        size += (size_t)(2 * component->lines * component->stride);
    }
    uint8_t *memory = fic_buffer_reserve(&decoder->planes, size + 4 * wide);
    if (!memory)
        return FIC_ERROR_MEMORY;
    for (int32_t c = 0; c < header->num_components; c++)
        image->component[c].samples = memory + offset[c];
    image->wide[0] = memory + size;
    image->wide[1] = image->wide[0] + wide;
    image->sums = (uint16_t *)(image->wide[1] + wide); /* half the width, and two */
    if (image->grey)
        memset(image->wide[0], 128, 2 * wide);
    return FIC_OK;
}

int32_t fic_read_plain_image(fic_decoder *decoder, const uint8_t *jpeg, int64_t jpeg_size, int32_t width,
                             int32_t height, uint8_t *out)
{
    if (!decoder || !jpeg || jpeg_size < 0 || !out)
        return FIC_ERROR_ARGUMENT;
    const fic_jpeg_header *header = &decoder->header;
    fic_scan *scan = &decoder->scan;
    int32_t code = fic_parse_header(jpeg, jpeg_size, &decoder->header);
    if (code != FIC_OK)
        return code;
    if (header->width != width || header->height != height)
        return FIC_ERROR_SIZE_MISMATCH;
    if (!fic_is_plain(header))
        return FIC_ERROR_UNSUPPORTED;
    whole_image image;
    code = place_rows(decoder, &image);
    if (code == FIC_OK)
        code = fic_prepare_scan(decoder, jpeg, jpeg_size, 1);
    if (code == FIC_OK)
        code = fic_scan_begin(scan, header->scan_start);

    int32_t y = 0, simd = decoder->simd;
    (void)simd;
    for (int32_t row = 0; row < header->mcu_rows && code == FIC_OK; row++) {
        for (int32_t c = 0; c < header->num_components; c++) {
            const component_rows *component = &image.component[c];
            scan->plane[c].block_y = row * component->lines / 8;
            scan->plane[c].samples = component->samples + (row & 1) * component->lines * component->stride;
        }
        code = fic_scan_decode(scan, row, 0, header->mcus_per_row);
        /* A line's chroma may need the next row's. */
        int32_t ready = image.component[0].lines * (row + 1) - (image.subsampling.y == 2);
        if (row == header->mcu_rows - 1)
            ready = height;
        for (; y < ready && code == FIC_OK; y++) {
            const uint8_t *const line[3] = {line_of(&image.component[0], y), chroma_line(&image, 1, y, simd),
                                            chroma_line(&image, 2, y, simd)};
            SELECT(convert)(line, 0, width, out + (int64_t)y * width * 3);
        }
    }
    return code == FIC_OK && !fic_scan_ends(scan) ? FIC_ERROR_TRUNCATED : code;
}
