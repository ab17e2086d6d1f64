/* Encodes whole images. See jpeg_encoder.h and fic.h. */
#include "jpeg_encoder.h"

#include <string.h>

#include "decoder.h"
#include "islow.h"
#include "simd.h"

enum { MCU_SIDE = 16, BLOCKS_PER_MCU = 6, MAX_SIDE = 65500 /* libjpeg's */ };

/* The most that a block takes: 63 values of 10 bits after codes of 16, and a DC of 11 after one of 9. */
#define BLOCK_BYTES 208

#define COLOUR_HALF 32768
#define CHROMA_ROUND ((128 << 16) + COLOUR_HALF - 1)

/* T.81 K.1, natural order. */
static const uint8_t base_quantisers[2][64] = {
    {16, 11,  10,  16, 24, 40, 51, 61, 12,  12,  14,  19,  26, 58, 60, 55,  14,  13,  16,  24, 40, 57,
     69, 56,  14,  17, 22, 29, 51, 87, 80,  62,  18,  22,  37, 56, 68, 109, 103, 77,  24,  35, 55, 64,
     81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98,  112, 100, 103, 99},
    {17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99,
     99, 99, 47, 66, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
     99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99},
};

static const uint8_t natural_order[64] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
};

/* T.81 K.3, as DHT has them: 16 counts, then the symbols. */
static const uint8_t dc_specs[2][28] = {
    {0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11},
    {0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11},
};
static const uint8_t ac_specs[2][178] = {
    {0x00, 0x02, 0x01, 0x03, 0x03, 0x02, 0x04, 0x03, 0x05, 0x05, 0x04, 0x04, 0x00, 0x00, 0x01, 0x7d, 0x01, 0x02,
     0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71, 0x14, 0x32,
     0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72, 0x82, 0x09,
     0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39,
     0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63,
     0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83, 0x84, 0x85,
     0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5,
     0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5,
     0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2, 0xe3, 0xe4,
     0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa},
    {0x00, 0x02, 0x01, 0x02, 0x04, 0x04, 0x03, 0x04, 0x07, 0x05, 0x04, 0x04, 0x00, 0x01, 0x02, 0x77, 0x00, 0x01,
     0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22, 0x32, 0x81,
     0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16,
     0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x35, 0x36, 0x37, 0x38,
     0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a,
     0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x82, 0x83,
     0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3,
     0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3,
     0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe2, 0xe3,
     0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa},
};

/* Two blocks next to each other, or a block of either chroma component, on their way through the encoder. */
typedef struct {
    _Alignas(32) int16_t quantised[8][2][8]; /* [row][block][column] */
    _Alignas(32) int8_t zigzag[2][64];       /* the same in that order, and saturated */
    uint64_t present[2];                     /* bit i: zigzag[i] is not 0 */
} block_pair;

/* MSB-first, without stuffing. */
typedef struct {
    uint64_t window; /* its lowest `count` bits are still to be written */
    uint32_t count;
    uint8_t *next;
} bit_writer;

/* An entry point before the stuffing. */
typedef struct {
    int64_t position; /* in bits from the first that the row's buffer holds */
    int32_t dc[3];
} noted_point;

/* The samples of a row of MCUs: of luma, and of both chroma components, eight of either in turn. */
typedef struct {
    int32_t width, height;
    int64_t stride;             /* of all lines: 16 for each MCU */
    uint8_t *luma, *chroma;     /* 16 and 8 lines */
    uint8_t *full[2], *next[2]; /* a line of Cb and Cr at the luma's resolution, and the one below */
} sample_rows;

/* Where the JPEG and its index go. */
typedef struct {
    uint8_t *out, *end;
    uint8_t *to;
    noted_point *point;
    int32_t every_k;
    uint8_t *index; /* NULL: not wanted */
    int32_t fits;   /* so far, into the index's fields */
} target;

static fic_written_code code_of(uint32_t bits, uint32_t length)
{
    return bits << 8 | length;
}

static void build_codes(const uint8_t *spec, fic_written_code *codes)
{
    const uint8_t *symbol = spec + 16;
    uint32_t code = 0;
    for (uint32_t length = 1; length <= 16; length++, code <<= 1)
        for (uint32_t i = 0; i < spec[length - 1]; i++)
            codes[*symbol++] = code_of(code++, length);
}

FIC_INLINE uint32_t bits_of(int32_t value)
{
    return value ? 32 - (uint32_t)__builtin_clz((uint32_t)(value < 0 ? -value : value)) : 0;
}

/* T.81 F.1.2.1: a negative value has the bits of the one below. */
FIC_INLINE uint32_t magnitude_of(int32_t value, uint32_t size)
{
    return (uint32_t)(value - (value < 0)) & ((1u << size) - 1);
}

/* A code and the magnitude bits of the value whose symbol it stands for: at most 24. */
FIC_INLINE fic_written_code with_magnitude(fic_written_code code, int32_t value, uint32_t size)
{
    return code_of((code >> 8) << size | magnitude_of(value, size), (code & 255) + size);
}

static int32_t build_tables(fic_jpeg_encoder *encoder)
{
    fic_written_tables *tables = fic_buffer_reserve(&encoder->tables, 2 * sizeof *tables);
    if (!tables)
        return FIC_ERROR_MEMORY;
    memset(tables, 0, 2 * sizeof *tables);
    for (int32_t i = 0; i < 2; i++, tables++) {
        build_codes(dc_specs[i], tables->dc);
        build_codes(ac_specs[i], tables->ac);
        for (uint32_t run = 0; run < 16; run++)
            for (int32_t value = -127; value < 127; value++) {
                uint32_t size = bits_of(value);
                tables->short_values[run][(uint8_t)value] = with_magnitude(tables->ac[run << 4 | size], value, size);
            }
    }
    return FIC_OK;
}

/* libjpeg's: the reciprocal has 16 bits, and its error is made good by the correction. */
static void build_divisor(fic_divisors *divisors, int32_t at, uint32_t divisor)
{
    uint32_t bits = 31 - (uint32_t)__builtin_clz(divisor), shift = 16 + bits;
    uint32_t reciprocal = (1u << shift) / divisor, rest = (1u << shift) % divisor, correction = divisor / 2;
    if (rest == 0) {
        reciprocal >>= 1;
        shift--;
    } else if (rest <= divisor / 2) {
        correction++;
    } else {
        reciprocal++;
    }
    divisors->reciprocal[at] = (uint16_t)reciprocal;
    divisors->correction[at] = (uint16_t)correction;
    divisors->scale[at] = (uint16_t)(1u << (32 - shift));
}

static void build_quantisers(fic_jpeg_encoder *encoder, int32_t quality)
{
    int32_t percent = quality < 50 ? 5000 / quality : 200 - 2 * quality;
    for (int32_t i = 0; i < 2; i++)
        for (int32_t at = 0; at < 64; at++) {
            int32_t natural = natural_order[at], value = (base_quantisers[i][natural] * percent + 50) / 100;
            value = value < 1 ? 1 : value > 255 ? 255 : value;
            encoder->quantiser[i][at] = (uint8_t)value;
            build_divisor(&encoder->divisors[i], natural, 8 * (uint32_t)value);
        }
    encoder->quality = quality;
}

/* Columns of lines or lines of columns: each is the one-dimensional transform of 8 values, scaled by 2^13 where it is
 * not one of two integers, which come first. */
static void forward_line(const int32_t x[8], int32_t whole[2], int32_t others[8])
{
    int32_t sum[4], d[4];
    for (int32_t i = 0; i < 4; i++) {
        sum[i] = x[i] + x[7 - i];
        d[i] = x[i] - x[7 - i];
    }
    int32_t outer = sum[0] - sum[3], inner = sum[1] - sum[2];
    whole[0] = sum[0] + sum[3] + sum[1] + sum[2];
    whole[1] = sum[0] + sum[3] - sum[1] - sum[2];
    others[2] = outer * FIC_ISLOW_X22 + inner * FIC_ISLOW_X26;
    others[6] = outer * FIC_ISLOW_X26 + inner * FIC_ISLOW_X66;
    others[1] = d[0] * FIC_ISLOW_A1 + d[1] * FIC_ISLOW_A3 + d[2] * FIC_ISLOW_A5 + d[3] * FIC_ISLOW_A7;
    others[3] = d[0] * FIC_ISLOW_A3 + d[1] * FIC_ISLOW_B3 + d[2] * FIC_ISLOW_B5 + d[3] * FIC_ISLOW_B7;
    others[5] = d[0] * FIC_ISLOW_A5 + d[1] * FIC_ISLOW_B5 + d[2] * FIC_ISLOW_C5 + d[3] * FIC_ISLOW_C7;
    others[7] = d[0] * FIC_ISLOW_A7 + d[1] * FIC_ISLOW_B7 + d[2] * FIC_ISLOW_C7 + d[3] * FIC_ISLOW_D7;
}

static void transform_scalar(const uint8_t *samples, int64_t stride, const fic_divisors *divisors, block_pair *pair)
{
    for (int32_t b = 0; b < 2; b++, samples += 8) {
        int32_t line[8], whole[2], others[8], between[8][8];
        for (int32_t y = 0; y < 8; y++) {
            for (int32_t x = 0; x < 8; x++)
                line[x] = samples[y * stride + x] - 128;
            forward_line(line, whole, others);
            for (int32_t u = 0; u < 8; u++) /* two fractional bits are kept */
                between[u][y] = u % 4 ? (others[u] + (1 << 10)) >> 11 : whole[u / 4] * 4;
        }
        for (int32_t u = 0; u < 8; u++) {
            forward_line(between[u], whole, others);
            for (int32_t v = 0; v < 8; v++) {
                int32_t value = v % 4 ? (others[v] + (1 << 14)) >> 15 : (whole[v / 4] + 2) >> 2, at = 8 * v + u;
                uint32_t size = (uint32_t)(value < 0 ? -value : value) + divisors->correction[at];
                size = (size * divisors->reciprocal[at] >> 16) * divisors->scale[at] >> 16;
                pair->quantised[v][b][u] = (int16_t)(value < 0 ? -(int32_t)size : (int32_t)size);
            }
        }
        pair->present[b] = 0;
        for (int32_t i = 0; i < 64; i++) {
            int32_t value = pair->quantised[natural_order[i] >> 3][b][natural_order[i] & 7];
            pair->zigzag[b][i] = (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
            pair->present[b] |= (uint64_t)(value != 0) << i;
        }
    }
}

static void to_ycc_scalar(const uint8_t *rgb, int32_t from, int32_t width, uint8_t *luma, uint8_t *cb, uint8_t *cr)
{
    for (int32_t x = from; x < width; x++) {
        int32_t r = rgb[3 * x], g = rgb[3 * x + 1], b = rgb[3 * x + 2];
        luma[x] = (uint8_t)((19595 * r + 38470 * g + 7471 * b + COLOUR_HALF) >> 16);
        cb[x] = (uint8_t)((-11059 * r - 21709 * g + 32768 * b + CHROMA_ROUND) >> 16);
        cr[x] = (uint8_t)((32768 * r - 27439 * g - 5329 * b + CHROMA_ROUND) >> 16);
    }
}

/* Means of 2 x 2 samples; .5 is rounded up and down in turn. Eight of Cb and eight of Cr at a time: `count` of either.
 */
FIC_INLINE void halve(const uint8_t *above, const uint8_t *below, int64_t count, uint8_t *restrict out)
{
    for (int64_t i = 0; i < count; i++) {
        int32_t sum = above[2 * i] + above[2 * i + 1] + below[2 * i] + below[2 * i + 1];
        out[i / 8 * 16 + i % 8] = (uint8_t)((sum + 1 + (int32_t)(i & 1)) >> 2);
    }
}

static void halve_scalar(const uint8_t *above, const uint8_t *below, int64_t count, uint8_t *out)
{
    halve(above, below, count, out);
}

/* Store all whole bytes, and more that the next flush overwrites. */
FIC_INLINE void flush_bits(bit_writer *writer)
{
    uint64_t left = writer->window << (-writer->count & 63); /* without a bit it does not matter what is stored */
    for (int32_t i = 0; i < 8; i++)
        writer->next[i] = (uint8_t)(left >> (56 - 8 * i));
    writer->next += writer->count >> 3;
    writer->count &= 7;
}

/* At most 56 bits between two flushes: a DC takes 22, a short value 23, an end of block 4. */
FIC_INLINE void put(bit_writer *writer, fic_written_code code)
{
    uint32_t length = code & 255;
    writer->window = writer->window << length | code >> 8;
    writer->count += length;
}

/* A value that is not short, or comes after more than 15 zeros. Returns the writer with its bits flushed. */
static bit_writer put_long(bit_writer writer, const fic_written_code *codes, uint32_t run, int32_t value)
{
    flush_bits(&writer);
    for (; run > 15; run -= 16)
        put(&writer, codes[0xf0]);
    flush_bits(&writer);
    uint32_t size = bits_of(value);
    put(&writer, codes[run << 4 | size]);
    put(&writer, code_of(magnitude_of(value, size), size));
    flush_bits(&writer);
    return writer;
}

/* What is left of a block's coefficients. */
typedef struct {
    uint64_t present;
    uint32_t next; /* in zigzag order; the lowest bit of `present` is its */
} coefficients_left;

/* The bits are not flushed. */
FIC_INLINE void put_coefficient(bit_writer *writer, const fic_written_tables *tables, const block_pair *pair, int32_t b,
                                coefficients_left *left)
{
    uint32_t run = (uint32_t)__builtin_ctzll(left->present), at = left->next + run;
    fic_written_code code = tables->short_values[run][(uint8_t)pair->zigzag[b][at]];
    left->present = left->present >> run >> 1;
    left->next = at + 1;
    if (FIC_LIKELY(code != 0))
        put(writer, code);
    else
        *writer = put_long(*writer, tables->ac, run, pair->quantised[natural_order[at] >> 3][b][natural_order[at] & 7]);
}

FIC_INLINE void put_block(bit_writer *to, const fic_written_tables *tables, const block_pair *pair, int32_t b,
                          int32_t *dc)
{
    bit_writer writer = *to; /* in registers */
    int32_t difference = pair->quantised[0][b][0] - *dc;
    *dc += difference;
    uint32_t size = bits_of(difference);
    put(&writer, with_magnitude(tables->dc[size], difference, size));
    coefficients_left left = {pair->present[b] >> 1, 1};
    while (left.present) {
        put_coefficient(&writer, tables, pair, b, &left);
        flush_bits(&writer);
        if (!left.present)
            break;
        put_coefficient(&writer, tables, pair, b, &left);
    }
    if (left.next != 64)
        put(&writer, tables->ac[0]);
    flush_bits(&writer);
    *to = writer;
}

typedef void transform_function(const uint8_t *samples, int64_t stride, const fic_divisors *divisors, block_pair *pair);

/* Encode a row of MCUs. Blocks that lie outside the image altogether repeat the DC of the one before. */
FIC_INLINE void put_row(bit_writer *writer, const fic_jpeg_encoder *encoder, const sample_rows *rows, int32_t row,
                        int32_t dc[3], target *to, transform_function transform)
{
    block_pair pair;
    const fic_written_tables *tables = encoder->tables.data;
    const uint8_t *luma = rows->luma, *chroma = rows->chroma, *start = writer->next;
    int32_t columns = (int32_t)(rows->stride / MCU_SIDE), until_point = 0;
    int32_t lines = (rows->height + 7) / 8 - 2 * row < 2 ? 1 : 2; /* of luma blocks inside the image */
    noted_point *point = to->point;
    for (int32_t column = 0; column < columns; column++, luma += MCU_SIDE, chroma += MCU_SIDE) {
        if (until_point == 0) {
            *point++ = (noted_point){(writer->next - start) * 8 + writer->count, {dc[0], dc[1], dc[2]}};
            until_point = to->every_k;
        }
        until_point--;
        int32_t blocks = (rows->width + 7) / 8 - 2 * column < 2 ? 1 : 2;
        for (int32_t line = 0; line < 2; line++) {
            if (line < lines)
                transform(luma + line * 8 * rows->stride, rows->stride, &encoder->divisors[0], &pair);
            for (int32_t b = 0; b < 2; b++) {
                if (line >= lines || b >= blocks) {
                    pair.quantised[0][b][0] = (int16_t)dc[0];
                    pair.present[b] = 0;
                }
                put_block(writer, &tables[0], &pair, b, &dc[0]);
            }
        }
        transform(chroma, rows->stride, &encoder->divisors[1], &pair);
        put_block(writer, &tables[1], &pair, 0, &dc[1]);
        put_block(writer, &tables[1], &pair, 1, &dc[2]);
    }
}

static void put_row_scalar(bit_writer *writer, const fic_jpeg_encoder *encoder, const sample_rows *rows, int32_t row,
                           int32_t dc[3], target *to)
{
    put_row(writer, encoder, rows, row, dc, to, transform_scalar);
}

/* The bytes before the next 0xff. */
static int64_t plain_bytes_scalar(const uint8_t *from, int64_t size)
{
    const uint8_t *found = memchr(from, 0xff, (size_t)size);
    return found ? found - from : size;
}

#if defined(FIC_SIMD)
/* 16-bit lanes; the low half of each register is the first block's, the high half the second's. */
FIC_TARGET_AVX2 FIC_INLINE void transpose(__m256i r[8])
{
    __m256i a[8], b[8];
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm256_unpacklo_epi16(r[2 * i], r[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_epi16(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            b[4 * i + 2 * j] = _mm256_unpacklo_epi32(a[4 * i + j], a[4 * i + 2 + j]);
            b[4 * i + 2 * j + 1] = _mm256_unpackhi_epi32(a[4 * i + j], a[4 * i + 2 + j]);
        }
    for (int i = 0; i < 4; i++) {
        r[2 * i] = _mm256_unpacklo_epi64(b[i], b[i + 4]);
        r[2 * i + 1] = _mm256_unpackhi_epi64(b[i], b[i + 4]);
    }
}

/* Products of the pairs in the lanes, rounded to 16 bits. */
FIC_TARGET_AVX2 FIC_INLINE __m256i products(__m256i low, __m256i high, __m256i constants, int shift)
{
    __m256i round = _mm256_set1_epi32(1 << (shift - 1));
    low = _mm256_srai_epi32(_mm256_add_epi32(_mm256_madd_epi16(low, constants), round), shift);
    high = _mm256_srai_epi32(_mm256_add_epi32(_mm256_madd_epi16(high, constants), round), shift);
    return _mm256_packs_epi32(low, high);
}

FIC_TARGET_AVX2 FIC_INLINE __m256i four_products(const __m256i a[2], const __m256i b[2], __m256i for_a, __m256i for_b,
                                                 int shift)
{
    __m256i round = _mm256_set1_epi32(1 << (shift - 1)), half[2];
    for (int i = 0; i < 2; i++) {
        half[i] = _mm256_add_epi32(_mm256_madd_epi16(a[i], for_a), _mm256_madd_epi16(b[i], for_b));
        half[i] = _mm256_srai_epi32(_mm256_add_epi32(half[i], round), shift);
    }
    return _mm256_packs_epi32(half[0], half[1]);
}

/* Along the registers, in place: the first pass, which keeps two fractional bits, or the second. */
FIC_TARGET_AVX2 FIC_INLINE void forward_pass(__m256i r[8], int first)
{
    int shift = first ? 11 : 15;
    __m256i sum[4], d[4];
    for (int i = 0; i < 4; i++) {
        sum[i] = _mm256_add_epi16(r[i], r[7 - i]);
        d[i] = _mm256_sub_epi16(r[i], r[7 - i]);
    }
    __m256i outer = _mm256_sub_epi16(sum[0], sum[3]), inner = _mm256_sub_epi16(sum[1], sum[2]);
    __m256i a = _mm256_add_epi16(sum[0], sum[3]), b = _mm256_add_epi16(sum[1], sum[2]);
    r[0] = _mm256_add_epi16(a, b);
    r[4] = _mm256_sub_epi16(a, b);
    for (int i = 0; i < 8; i += 4)
        r[i] = first ? _mm256_slli_epi16(r[i], 2) : _mm256_srai_epi16(_mm256_add_epi16(r[i], _mm256_set1_epi16(2)), 2);
    __m256i low = _mm256_unpacklo_epi16(outer, inner), high = _mm256_unpackhi_epi16(outer, inner);
    r[2] = products(low, high, FIC_PAIR(FIC_ISLOW_X22, FIC_ISLOW_X26), shift);
    r[6] = products(low, high, FIC_PAIR(FIC_ISLOW_X26, FIC_ISLOW_X66), shift);
    __m256i d01[2] = {_mm256_unpacklo_epi16(d[0], d[1]), _mm256_unpackhi_epi16(d[0], d[1])};
    __m256i d23[2] = {_mm256_unpacklo_epi16(d[2], d[3]), _mm256_unpackhi_epi16(d[2], d[3])};
    r[1] = four_products(d01, d23, FIC_PAIR(FIC_ISLOW_A1, FIC_ISLOW_A3), FIC_PAIR(FIC_ISLOW_A5, FIC_ISLOW_A7), shift);
    r[3] = four_products(d01, d23, FIC_PAIR(FIC_ISLOW_A3, FIC_ISLOW_B3), FIC_PAIR(FIC_ISLOW_B5, FIC_ISLOW_B7), shift);
    r[5] = four_products(d01, d23, FIC_PAIR(FIC_ISLOW_A5, FIC_ISLOW_B5), FIC_PAIR(FIC_ISLOW_C5, FIC_ISLOW_C7), shift);
    r[7] = four_products(d01, d23, FIC_PAIR(FIC_ISLOW_A7, FIC_ISLOW_B7), FIC_PAIR(FIC_ISLOW_C7, FIC_ISLOW_D7), shift);
}

FIC_TARGET_AVX2 FIC_INLINE __m256i both(const void *from)
{
    return _mm256_broadcastsi128_si256(_mm_load_si128(from));
}

/* Where in two rows of eight the bytes of a quarter of the zigzag order come from; -1: from other rows. */
#define NO (-1)
static const _Alignas(16) int8_t zigzag_of_rows[4][4][16] = {
    {{0, 1, 8, NO, 9, 2, 3, 10, NO, NO, NO, NO, NO, 11, 4, 5},
     {NO, NO, NO, 0, NO, NO, NO, NO, 1, 8, NO, 9, 2, NO, NO, NO},
     {NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, 0, NO, NO, NO, NO, NO}},
    {{12, NO, NO, NO, NO, NO, NO, NO, NO, NO, 13, 6, 7, 14, NO, NO},
     {NO, 3, 10, NO, NO, NO, NO, NO, 11, 4, NO, NO, NO, NO, 5, 12},
     {NO, NO, NO, 1, 8, NO, 9, 2, NO, NO, NO, NO, NO, NO, NO, NO},
     {NO, NO, NO, NO, NO, 0, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO}},
    {{NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, 15, NO, NO, NO, NO, NO},
     {NO, NO, NO, NO, NO, NO, NO, NO, 13, 6, NO, 7, 14, NO, NO, NO},
     {3, 10, NO, NO, NO, NO, 11, 4, NO, NO, NO, NO, NO, 5, 12, NO},
     {NO, NO, 1, 8, 9, 2, NO, NO, NO, NO, NO, NO, NO, NO, NO, 3}},
    {{NO},
     {NO, NO, NO, NO, NO, 15, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO},
     {NO, NO, NO, 13, 6, NO, 7, 14, NO, NO, NO, NO, 15, NO, NO, NO},
     {10, 11, 4, NO, NO, NO, NO, NO, 5, 12, 13, 6, NO, 7, 14, 15}},
};
#undef NO

/* Eight rows of either block to bytes in zigzag order. */
FIC_TARGET_AVX2 FIC_INLINE void to_zigzag(const __m256i r[8], block_pair *pair)
{
    __m256i rows[4];
    uint64_t present[2] = {0, 0};
    for (int i = 0; i < 4; i++)
        rows[i] = _mm256_packs_epi16(r[2 * i], r[2 * i + 1]);
    for (int i = 0; i < 4; i++) {
        __m256i quarter = _mm256_setzero_si256();
        for (int j = i == 3; j < (i == 0 ? 3 : 4); j++)
            quarter = _mm256_or_si256(quarter, _mm256_shuffle_epi8(rows[j], both(zigzag_of_rows[i][j])));
        _mm_store_si128((__m128i *)(pair->zigzag[0] + 16 * i), _mm256_castsi256_si128(quarter));
        _mm_store_si128((__m128i *)(pair->zigzag[1] + 16 * i), _mm256_extracti128_si256(quarter, 1));
        uint32_t zero = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(quarter, _mm256_setzero_si256()));
        present[0] |= (uint64_t)(~zero & 0xffff) << 16 * i;
        present[1] |= (uint64_t)(~zero >> 16) << 16 * i;
    }
    pair->present[0] = present[0];
    pair->present[1] = present[1];
}

FIC_TARGET_AVX2 __attribute__((noinline)) static void transform_avx2(const uint8_t *samples, int64_t stride,
                                                                     const fic_divisors *divisors, block_pair *pair)
{
    __m256i r[8];
    for (int y = 0; y < 8; y++)
        r[y] = _mm256_sub_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(samples + y * stride))),
                                _mm256_set1_epi16(128));
    /* The first pass is along the rows. */
    transpose(r);
    forward_pass(r, 1);
    transpose(r);
    forward_pass(r, 0);
    for (int v = 0; v < 8; v++) {
        __m256i size = _mm256_add_epi16(_mm256_abs_epi16(r[v]), both(divisors->correction + 8 * v));
        size = _mm256_mulhi_epu16(_mm256_mulhi_epu16(size, both(divisors->reciprocal + 8 * v)),
                                  both(divisors->scale + 8 * v));
        r[v] = _mm256_sign_epi16(size, r[v]);
        _mm256_store_si256((__m256i *)pair->quantised[v], r[v]);
    }
    to_zigzag(r, pair);
}

FIC_TARGET_AVX2 static void put_row_avx2(bit_writer *writer, const fic_jpeg_encoder *encoder, const sample_rows *rows,
                                         int32_t row, int32_t dc[3], target *to)
{
    put_row(writer, encoder, rows, row, dc, to, transform_avx2);
}

FIC_TARGET_AVX2 static void halve_avx2(const uint8_t *above, const uint8_t *below, int64_t count, uint8_t *out)
{
    const __m256i ones = _mm256_set1_epi8(1), round = _mm256_set1_epi32(0x20001);
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
        __m256i sum =
            _mm256_add_epi16(_mm256_maddubs_epi16(_mm256_loadu_si256((const __m256i *)(above + 2 * i)), ones),
                             _mm256_maddubs_epi16(_mm256_loadu_si256((const __m256i *)(below + 2 * i)), ones));
        sum = _mm256_srli_epi16(_mm256_add_epi16(sum, round), 2);
        __m256i bytes = _mm256_packus_epi16(sum, sum);
        _mm_storel_epi64((__m128i *)(out + 2 * i), _mm256_castsi256_si128(bytes));
        _mm_storel_epi64((__m128i *)(out + 2 * i + 16), _mm256_extracti128_si256(bytes, 1));
    }
    halve(above + 2 * i, below + 2 * i, count - i, out + 2 * i);
}

/* Where in each of three vectors of pixels the bytes of a colour are. */
FIC_TARGET_AVX2 FIC_INLINE __m256i pick_colour(const __m128i rgb[3], int colour)
{
    __m128i bytes = _mm_setzero_si128();
    for (int part = 0; part < 3; part++) {
        int8_t order[16];
        for (int i = 0; i < 16; i++) {
            int byte = 3 * i + colour - 16 * part;
            order[i] = (int8_t)(byte >= 0 && byte < 16 ? byte : -1);
        }
        bytes = _mm_or_si128(bytes, _mm_shuffle_epi8(rgb[part], _mm_loadu_si128((const __m128i *)order)));
    }
    return _mm256_cvtepu8_epi16(bytes);
}

/* 16 lanes of sums to bytes. */
FIC_TARGET_AVX2 FIC_INLINE void store_sums(__m256i low, __m256i high, int32_t round, uint8_t *out)
{
    low = _mm256_srai_epi32(_mm256_add_epi32(low, _mm256_set1_epi32(round)), 16);
    high = _mm256_srai_epi32(_mm256_add_epi32(high, _mm256_set1_epi32(round)), 16);
    __m256i words = _mm256_packs_epi32(low, high);
    _mm_storeu_si128((__m128i *)out,
                     _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

FIC_TARGET_AVX2 static int32_t to_ycc_16s(const uint8_t *rgb, int32_t width, uint8_t *luma, uint8_t *cb, uint8_t *cr)
{
    int32_t x = 0;
    const __m256i zero = _mm256_setzero_si256();
    for (; x + 16 <= width; x += 16) {
        __m128i part[3];
        for (int i = 0; i < 3; i++)
            part[i] = _mm_loadu_si128((const __m128i *)(rgb + 3 * (int64_t)x) + i);
        __m256i r = pick_colour(part, 0), g = pick_colour(part, 1), b = pick_colour(part, 2);
        __m256i rg[2] = {_mm256_unpacklo_epi16(r, g), _mm256_unpackhi_epi16(r, g)};
        __m256i bg[2] = {_mm256_unpacklo_epi16(b, g), _mm256_unpackhi_epi16(b, g)};
        __m256i rs[2] = {_mm256_unpacklo_epi16(zero, r), _mm256_unpackhi_epi16(zero, r)};
        __m256i bs[2] = {_mm256_unpacklo_epi16(zero, b), _mm256_unpackhi_epi16(zero, b)};
        __m256i y[2], u[2], v[2];
        for (int i = 0; i < 2; i++) { /* 38470 = 22086 + 16384; 32768 is a shift */
            y[i] = _mm256_add_epi32(_mm256_madd_epi16(rg[i], FIC_PAIR(19595, 22086)),
                                    _mm256_madd_epi16(bg[i], FIC_PAIR(7471, 16384)));
            u[i] = _mm256_add_epi32(_mm256_madd_epi16(rg[i], FIC_PAIR(-11059, -21709)), _mm256_srli_epi32(bs[i], 1));
            v[i] = _mm256_add_epi32(_mm256_madd_epi16(bg[i], FIC_PAIR(-5329, -27439)), _mm256_srli_epi32(rs[i], 1));
        }
        store_sums(y[0], y[1], COLOUR_HALF, luma + x);
        store_sums(u[0], u[1], CHROMA_ROUND, cb + x);
        store_sums(v[0], v[1], CHROMA_ROUND, cr + x);
    }
    return x;
}

static void to_ycc_avx2(const uint8_t *rgb, int32_t from, int32_t width, uint8_t *luma, uint8_t *cb, uint8_t *cr)
{
    (void)from;
    to_ycc_scalar(rgb, to_ycc_16s(rgb, width, luma, cb, cr), width, luma, cb, cr);
}

FIC_TARGET_AVX2 static int64_t plain_bytes_avx2(const uint8_t *from, int64_t size)
{
    int64_t i = 0;
    for (; i + 32 <= size; i += 32) {
        __m256i bytes = _mm256_loadu_si256((const __m256i *)(from + i));
        uint32_t found = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(-1)));
        if (found)
            return i + __builtin_ctz(found);
    }
    return i + plain_bytes_scalar(from + i, size - i);
}
#define SELECT(name) (simd ? name##_avx2 : name##_scalar)
#else
#define SELECT(name) name##_scalar
#endif

/* Convert a line of pixels; what follows its end repeats the last. */
static void fill_line(const sample_rows *rows, const uint8_t *rgb, int32_t simd, uint8_t *luma,
                      uint8_t *const chroma[2])
{
    (void)simd;
    SELECT(to_ycc)(rgb, 0, rows->width, luma, chroma[0], chroma[1]);
    uint8_t *lines[3] = {luma, chroma[0], chroma[1]};
    for (int32_t c = 0; c < 3; c++)
        memset(lines[c] + rows->width, lines[c][rows->width - 1], (size_t)(rows->stride - rows->width));
}

/* The samples of a row of MCUs. Below the image the last line of each component is repeated. */
static void fill_rows(const sample_rows *rows, const uint8_t *rgb, int32_t row, int32_t simd)
{
    for (int32_t line = 0; line < MCU_SIDE; line += 2) {
        int32_t y = row * MCU_SIDE + line;
        uint8_t *luma = rows->luma + line * rows->stride, *chroma = rows->chroma + line / 2 * rows->stride;
        if (y >= rows->height) {
            memcpy(luma, luma - rows->stride, (size_t)rows->stride);
            memcpy(luma + rows->stride, luma, (size_t)rows->stride);
            memcpy(chroma, chroma - rows->stride, (size_t)rows->stride);
            continue;
        }
        const uint8_t *pixels = rgb + (int64_t)y * rows->width * 3;
        fill_line(rows, pixels, simd, luma, rows->full);
        uint8_t *const *below = y + 1 < rows->height ? rows->next : rows->full;
        if (y + 1 < rows->height)
            fill_line(rows, pixels + (int64_t)rows->width * 3, simd, luma + rows->stride, rows->next);
        else
            memcpy(luma + rows->stride, luma, (size_t)rows->stride);
        for (int32_t c = 0; c < 2; c++)
            SELECT(halve)(rows->full[c], below[c], rows->stride / 2, chroma + 8 * c);
    }
}

/* Copy bytes to the output, with a 0 after each 0xff, and move `points` to where their bytes lie in it. */
static int32_t stuff(const uint8_t *from, int64_t size, int32_t simd, target *to, int64_t num_points)
{
    (void)simd;
    uint8_t *const start = to->out;
    int64_t at = 0, moved = 0; /* points */
    for (;;) {
        int64_t plain = SELECT(plain_bytes)(from + at, size - at);
        if (plain + 2 > to->end - to->to)
            return FIC_ERROR_CAPACITY;
        memcpy(to->to, from + at, (size_t)plain);
        /* The byte 0xff itself is no further than these. */
        for (; moved < num_points && (to->point[moved].position >> 3) <= at + plain; moved++) {
            int64_t byte = to->to - start + (to->point[moved].position >> 3) - at;
            to->point[moved].position = byte * 8 + (to->point[moved].position & 7);
        }
        to->to += plain;
        at += plain;
        if (at == size)
            return FIC_OK;
        *to->to++ = 0xff;
        *to->to++ = 0;
        at++;
    }
}

static uint8_t *put_segment(uint8_t *to, uint8_t marker, const uint8_t *body, size_t size)
{
    *to++ = 0xff;
    *to++ = marker;
    *to++ = (uint8_t)((size + 2) >> 8);
    *to++ = (uint8_t)(size + 2);
    memcpy(to, body, size);
    return to + size;
}

#define HEADER_BYTES 700 /* it takes 623 */

static uint8_t *put_header(uint8_t *to, const fic_jpeg_encoder *encoder, int32_t width, int32_t height)
{
    static const uint8_t jfif[14] = {'J', 'F', 'I', 'F', 0, 1, 1, 0, 0, 1, 0, 1, 0, 0};
    uint8_t frame[15] = {8, 0, 0, 0, 0, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1}, table[1 + 178];
    static const uint8_t scan[10] = {3, 1, 0, 2, 0x11, 3, 0x11, 0, 63, 0};
    *to++ = 0xff;
    *to++ = 0xd8;
    to = put_segment(to, 0xe0, jfif, sizeof jfif);
    for (uint8_t i = 0; i < 2; i++) {
        table[0] = i;
        memcpy(table + 1, encoder->quantiser[i], 64);
        to = put_segment(to, 0xdb, table, 65);
    }
    frame[1] = (uint8_t)(height >> 8);
    frame[2] = (uint8_t)height;
    frame[3] = (uint8_t)(width >> 8);
    frame[4] = (uint8_t)width;
    to = put_segment(to, 0xc0, frame, sizeof frame);
    for (uint8_t i = 0; i < 2; i++) {
        table[0] = i;
        memcpy(table + 1, dc_specs[i], sizeof dc_specs[i]);
        to = put_segment(to, 0xc4, table, 1 + sizeof dc_specs[i]);
        table[0] = 0x10 | i;
        memcpy(table + 1, ac_specs[i], sizeof ac_specs[i]);
        to = put_segment(to, 0xc4, table, 1 + sizeof ac_specs[i]);
    }
    return put_segment(to, 0xda, scan, sizeof scan);
}

/* Memory for a row of MCUs. */
static int32_t reserve(fic_jpeg_encoder *encoder, sample_rows *rows, int32_t columns, noted_point **points)
{
    size_t stride = (size_t)rows->stride;
    uint8_t *memory = fic_buffer_reserve(&encoder->rows, stride * (16 + 8 + 4));
    *points = fic_buffer_reserve(&encoder->points, (size_t)columns * sizeof **points);
    if (!memory || !*points || !fic_buffer_reserve(&encoder->bits, (size_t)columns * BLOCKS_PER_MCU * BLOCK_BYTES + 64))
        return FIC_ERROR_MEMORY;
    rows->luma = memory;
    rows->chroma = memory + 16 * stride;
    for (int32_t c = 0; c < 2; c++) {
        rows->full[c] = memory + (size_t)(24 + c) * stride;
        rows->next[c] = memory + (size_t)(26 + c) * stride;
    }
    return FIC_OK;
}

static int32_t note_row(target *to, int64_t columns, int32_t row, int32_t num_rows)
{
    int64_t base = to->point[0].position;
    int32_t fits = fic_index_store_row(to->index, columns, num_rows, row, base);
    for (int64_t column = 0; column < columns; column++) {
        const noted_point *point = &to->point[column];
        fits &= fic_index_store_entry(to->index, columns, row, column, point->position - base, point->dc);
    }
    return fits;
}

int64_t fic_written_capacity(int32_t width, int32_t height)
{
    if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE)
        return FIC_ERROR_ARGUMENT;
    int64_t mcus = (int64_t)((width + 15) / MCU_SIDE) * ((height + 15) / MCU_SIDE);
    return HEADER_BYTES + mcus * MCU_SIDE * MCU_SIDE * 3 + 1024;
}

int64_t fic_written_index_capacity(int32_t width, int32_t height, int32_t every_k)
{
    if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE || every_k < 1 || every_k > 255)
        return FIC_ERROR_ARGUMENT;
    return fic_index_size((width + 15) / MCU_SIDE, (height + 15) / MCU_SIDE, every_k);
}

int64_t fic_write_jpeg(fic_decoder *decoder, const uint8_t *rgb, int32_t width, int32_t height, int32_t quality,
                       uint8_t *out, int64_t capacity, int32_t every_k, uint8_t *index, int64_t *index_size)
{
    int64_t index_capacity = fic_written_index_capacity(width, height, every_k);
    if (!decoder || !rgb || !out || !index != !index_size || quality < 1 || quality > 100 || index_capacity < 0)
        return FIC_ERROR_ARGUMENT;
    if (index_size && *index_size < index_capacity)
        return FIC_ERROR_CAPACITY;
    if (capacity < HEADER_BYTES)
        return FIC_ERROR_CAPACITY;
    fic_jpeg_encoder *encoder = &decoder->encoder;
    if (!encoder->tables.data && build_tables(encoder) != FIC_OK)
        return FIC_ERROR_MEMORY;
    if (encoder->quality != quality)
        build_quantisers(encoder, quality);
    int32_t mcus_per_row = (width + 15) / MCU_SIDE, num_rows = (height + 15) / MCU_SIDE, simd = decoder->simd;
    int64_t columns = fic_index_columns(mcus_per_row, every_k);
    sample_rows rows = {.width = width, .height = height, .stride = (int64_t)mcus_per_row * MCU_SIDE};
    target to = {.out = out, .end = out + capacity, .every_k = every_k, .index = index, .fits = 1};
    int32_t code = reserve(encoder, &rows, (int32_t)columns, &to.point), dc[3] = {0, 0, 0};
    if (code != FIC_OK)
        return code;
    if (index)
        memset(index, 0, (size_t)index_capacity);
    to.to = put_header(out, encoder, width, height);
    bit_writer writer = {0, 0, NULL};
    for (int32_t row = 0; row < num_rows; row++) {
        fill_rows(&rows, rgb, row, simd);
        writer.next = encoder->bits.data;
        SELECT(put_row)(&writer, encoder, &rows, row, dc, &to);
        if (row == num_rows - 1) { /* the last byte's rest are ones */
            put(&writer, code_of(0x7f, 7));
            flush_bits(&writer);
        }
        code = stuff(encoder->bits.data, writer.next - (uint8_t *)encoder->bits.data, simd, &to, columns);
        if (code != FIC_OK)
            return code;
        if (index)
            to.fits &= note_row(&to, columns, row, num_rows);
    }
    if (to.end - to.to < 2)
        return FIC_ERROR_CAPACITY;
    *to.to++ = 0xff;
    *to.to++ = 0xd9;
    if (index)
        *index_size = to.fits ? index_capacity : 0;
    return to.to - out;
}

void fic_jpeg_encoder_free(fic_jpeg_encoder *encoder)
{
    fic_buffer_free(&encoder->tables);
    fic_buffer_free(&encoder->rows);
    fic_buffer_free(&encoder->bits);
    fic_buffer_free(&encoder->points);
}
