/* Walks over the MCUs of a scan. See scan.h. */
#include "scan.h"

#include <string.h>

#include "fic.h"
#include "idct.h"
#include "islow.h"
#include "simd.h"
#if defined(FIC_SIMD)
#include "idct_avx2.h"
#include "islow_avx2.h"
#endif

#define NOINLINE __attribute__((noinline))

enum { MARKER_RST0 = 0xd0, MARKER_RST7 = 0xd7, MARKER_EOI = 0xd9 };

/*
 * Copy entropy-coded bytes without their stuffing (T.81 F.1.2.3) up to a marker or the end. Returns the number of bytes
 * written, *next is the offset of what stopped it. `to` needs room for the input and 32 bytes more.
 */
static int64_t unstuff(const uint8_t *from, int64_t size, uint8_t *to, int64_t *next)
{
    int64_t i = 0, written = 0;
    while (i < size) {
        const uint8_t *found = memchr(from + i, 0xff, (size_t)(size - i));
        int64_t plain = found ? found - (from + i) : size - i;
        memcpy(to + written, from + i, (size_t)plain);
        written += plain;
        i += plain;
        if (!found || i + 1 >= size || from[i + 1] != 0)
            break;
        to[written++] = 0xff;
        i += 2;
    }
    *next = i;
    return written;
}

#if defined(FIC_SIMD)
FIC_TARGET_AVX2 static int64_t unstuff_avx2(const uint8_t *from, int64_t size, uint8_t *to, int64_t *next)
{
    const __m256i ones = _mm256_set1_epi8(-1);
    int64_t i = 0, written = 0;
    while (i + 33 <= size) {
        __m256i bytes = _mm256_loadu_si256((const __m256i *)(from + i));
        _mm256_storeu_si256((__m256i *)(to + written), bytes);
        uint32_t found = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, ones));
        if (!found) {
            i += 32;
            written += 32;
            continue;
        }
        int64_t plain = __builtin_ctz(found);
        i += plain;
        written += plain;
        if (from[i + 1] != 0) {
            *next = i;
            return written;
        }
        written++; /* the 0xff itself is stored already */
        i += 2;
    }
    int64_t rest = unstuff(from + i, size - i, to + written, next);
    *next += i;
    return written + rest;
}
#endif

/* Make the bytes from `raw` on the current segment and skip the first `bit` bits. */
static int32_t load_segment(fic_scan *scan, int64_t raw, uint32_t bit)
{
    int64_t size = scan->limit - raw;
    uint8_t *to = fic_buffer_reserve(&scan->buffer, (size_t)size + 32 + FIC_SEGMENT_PADDING);
    if (!to)
        return FIC_ERROR_MEMORY;
    int64_t next;
#if defined(FIC_SIMD)
    scan->segment_size = (scan->simd ? unstuff_avx2 : unstuff)(scan->jpeg + raw, size, to, &next);
#else
    scan->segment_size = unstuff(scan->jpeg + raw, size, to, &next);
#endif
    memset(to + scan->segment_size, 0, FIC_SEGMENT_PADDING);
    scan->segment = to;
    scan->segment_raw = raw;
    scan->segment_next = raw + next;
    scan->bits.window = 0;
    scan->bits.next = to;
    scan->bits.available = 0;
    fic_bits_refill(&scan->bits);
    fic_bits_consume(&scan->bits, bit);
    return FIC_OK;
}

void fic_scan_describe(fic_scan *scan, const uint8_t *jpeg, int64_t size, const fic_jpeg_header *header)
{
    scan->jpeg = jpeg;
    scan->limit = size;
    scan->restart_interval = header->restart_interval;
    scan->until_restart = header->restart_interval ? header->restart_interval : INT64_MAX;
    scan->restart_number = 0;
    scan->num_blocks = 0;
    for (int32_t c = 0; c < header->num_components; c++) {
        fic_factors blocks = scan->blocks_per_mcu[c] = fic_blocks_per_mcu(header, c);
        for (int32_t i = 0; i < blocks.x * blocks.y; i++) {
            fic_mcu_block block = {c, i % blocks.x, i / blocks.x};
            scan->block[scan->num_blocks++] = block;
        }
    }
}

void fic_scan_copy(fic_scan *scan, const fic_scan *from)
{
    fic_buffer buffer = scan->buffer;
    *scan = *from;
    scan->buffer = buffer;
}

int32_t fic_scan_begin(fic_scan *scan, int64_t start)
{
    memset(scan->dc, 0, sizeof scan->dc);
    return load_segment(scan, start, 0);
}

int32_t fic_scan_seek(fic_scan *scan, const fic_entry_point *entry, int64_t mcu, int64_t limit)
{
    scan->limit = limit;
    if (scan->restart_interval) {
        scan->until_restart = scan->restart_interval - mcu % scan->restart_interval;
        scan->restart_number = (int32_t)(mcu / scan->restart_interval % 8);
    }
    memcpy(scan->dc, entry->dc, sizeof scan->dc);
    return load_segment(scan, entry->position >> 3, (uint32_t)entry->position & 7);
}

int32_t fic_scan_check(const fic_scan *scan)
{
    int64_t consumed = (scan->bits.next - scan->segment) * 8 - scan->bits.available;
    return consumed > scan->segment_size * 8 ? FIC_ERROR_TRUNCATED : FIC_OK;
}

int32_t fic_scan_restart(fic_scan *scan)
{
    if (scan->until_restart > 0)
        return 0;
    int64_t at = scan->segment_next;
    while (at < scan->limit && scan->jpeg[at] == 0xff)
        at++;
    if (at == scan->limit)
        return FIC_ERROR_TRUNCATED;
    if (at == scan->segment_next || scan->jpeg[at] != MARKER_RST0 + scan->restart_number)
        return FIC_ERROR_RESTART;
    scan->restart_number = (scan->restart_number + 1) & 7;
    scan->until_restart = scan->restart_interval;
    memset(scan->dc, 0, sizeof scan->dc);
    int32_t code = load_segment(scan, at + 1, 0);
    return code == FIC_OK ? 1 : code;
}

int32_t fic_scan_ends(const fic_scan *scan)
{
    const uint8_t *jpeg = scan->jpeg;
    for (int64_t at = scan->segment_next; at < scan->limit; at++) {
        if (jpeg[at] != 0xff) { /* entropy-coded bytes of a segment that was not loaded */
            const uint8_t *found = memchr(jpeg + at, 0xff, (size_t)(scan->limit - at));
            if (!found)
                return 0;
            at = found - jpeg;
        }
        while (at < scan->limit && jpeg[at] == 0xff)
            at++;
        if (at == scan->limit || jpeg[at] == MARKER_EOI)
            return at < scan->limit;
        if (jpeg[at] != 0 && (!scan->restart_interval || jpeg[at] < MARKER_RST0 || jpeg[at] > MARKER_RST7))
            return 0;
    }
    return 0;
}

int64_t fic_scan_position(const fic_scan *scan, int64_t *raw, int64_t *plain)
{
    int64_t consumed = (scan->bits.next - scan->segment) * 8 - scan->bits.available;
    int64_t target = consumed >> 3;
    while (*plain < target) {
        *raw += scan->jpeg[*raw] == 0xff ? 2 : 1;
        ++*plain;
    }
    return *raw * 8 + (consumed & 7);
}

static int32_t block_error(int32_t code)
{
    return code == FIC_BLOCK_BAD_CODE ? FIC_ERROR_CODE : FIC_ERROR_COEFFICIENT;
}

/* After the segment's end zero bits are read, up to FIC_SEGMENT_PADDING; an error found there means missing data. */
static int32_t run_error(fic_scan *scan, int32_t code)
{
    return fic_scan_check(scan) != FIC_OK ? FIC_ERROR_TRUNCATED : block_error(code);
}

FIC_INLINE int32_t skip_run(fic_scan *scan, int64_t count, fic_bits_function pair_bits)
{
    fic_bits bits = scan->bits;
    const uint8_t *stop = scan->segment + scan->segment_size + 8;
    int32_t num_blocks = scan->num_blocks;
    for (; count > 0; count--) {
        for (int32_t i = 0; i < num_blocks; i++) {
            int32_t c = scan->block[i].component;
            int32_t code = fic_skip_block(&bits, scan->dc_table[c], scan->ac_table[c], pair_bits, &scan->dc[c]);
            if (FIC_UNLIKELY(code)) {
                scan->bits = bits;
                return run_error(scan, code);
            }
        }
        if (FIC_UNLIKELY(bits.next > stop))
            return FIC_ERROR_TRUNCATED;
    }
    scan->bits = bits;
    return FIC_OK;
}

/* A block of the MCU at hand: what decodes it, and where its samples go. */
typedef struct {
    const fic_huffman_table *dc_table, *ac_table;
    int32_t *dc;
    uint32_t x, width; /* the block's column in the plane; outside the plane's rows the width is 0 */
    uint32_t columns;  /* per MCU */
    uint8_t *out;      /* the first sample of the plane in the block's lines */
    int64_t stride;
    const uint16_t *quantisers;
} mcu_block;

/* Describe the blocks of the MCU in this row and column. */
FIC_INLINE void locate_blocks(fic_scan *scan, int32_t row, int32_t column, mcu_block block[FIC_MAX_BLOCKS])
{
    for (int32_t i = 0; i < scan->num_blocks; i++) {
        int32_t c = scan->block[i].component;
        fic_factors per_mcu = scan->blocks_per_mcu[c];
        const fic_plane *plane = &scan->plane[c];
        int32_t y = row * per_mcu.y + scan->block[i].y - plane->block_y;
        int32_t inside = y >= 0 && y < plane->blocks_h;
        block[i].quantisers = plane->quantisers;
        block[i].stride = plane->stride;
        block[i].dc_table = scan->dc_table[c];
        block[i].ac_table = scan->ac_table[c];
        block[i].dc = &scan->dc[c];
        block[i].out = plane->samples + (inside ? (int64_t)y * 8 * plane->stride : 0);
        block[i].x = (uint32_t)(column * per_mcu.x + scan->block[i].x - plane->block_x);
        block[i].width = inside ? (uint32_t)plane->blocks_w : 0;
        block[i].columns = (uint32_t)per_mcu.x;
    }
}

/* Makes samples of a block's coefficients, and the coefficients zero. Returns whether they are beyond what it knows to
 * transform. */
typedef int32_t transform_function(int16_t *cells, const uint16_t *quantisers, int32_t dc_only, uint8_t *out,
                                   int64_t stride);

/* What is made of coefficients: constants, so that there are loops for each. */
typedef struct {
    fic_bits_function *pair_bits;
    transform_function *transform;
    const uint8_t *order; /* where they are stored: [FIC_ORDER_SIZE] */
    int32_t exact;        /* the transform may refuse a block */
} decoding;

/* A block whose transform is due; `out` is NULL when there is none. */
typedef struct {
    int16_t *cells;
    const mcu_block *block;
    uint8_t *out;
    int32_t dc_only;
    int32_t refused; /* blocks before it */
} due_block;

/* The reading of the block at hand: what the loops over look-ups keep in registers. */
typedef struct {
    fic_bits bits;
    const fic_pair *pairs;
    const uint8_t *at;
    int16_t *cells;
} block_reader;

/* MCUs of one row on their way through decoding. */
typedef struct {
    mcu_block *block, *end; /* the block at hand; behind the MCU's last */
    uint8_t *out;           /* of the block at hand */
    int16_t *spare;         /* cells for the next block */
    int32_t mcus;           /* left, with this one */
    int32_t state;
    const uint8_t *stop;
    mcu_block blocks[FIC_MAX_BLOCKS];
} mcu_run;

enum { RUN_ENDED, RUN_GOES_ON }; /* or an error of a block */

/* Begin the next block that lies in a plane. Returns the run's state. */
FIC_INLINE int32_t begin_block(mcu_run *run, block_reader *reader, decoding how)
{
    mcu_block *block = run->block;
    for (;;) {
        if (++block == run->end) {
            block = run->blocks;
            /* Errors after the segment's end are errors of missing data. */
            if (FIC_UNLIKELY(reader->bits.next > run->stop))
                return FIC_BLOCK_BAD_CODE;
            if (--run->mcus == 0)
                return RUN_ENDED;
        }
        uint32_t x = block->x;
        block->x = x + block->columns;
        if (FIC_LIKELY(x < block->width)) {
            int32_t failure = fic_decode_dc(&reader->bits, block->dc_table, how.pair_bits, block->dc);
            if (FIC_UNLIKELY(failure))
                return failure;
            run->block = block;
            run->out = block->out + (int64_t)x * 8;
            reader->pairs = block->ac_table->pair;
            reader->at = how.order;
            reader->cells[0] = (int16_t)*block->dc;
            return RUN_GOES_ON;
        }
        int32_t failure = fic_skip_block(&reader->bits, block->dc_table, block->ac_table, how.pair_bits, block->dc);
        if (FIC_UNLIKELY(failure))
            return failure;
    }
}

FIC_INLINE void transform_due(due_block *due, decoding how)
{
    if (FIC_LIKELY(due->out != NULL)) {
        int32_t refused = how.transform(due->cells, due->block->quantisers, due->dc_only, due->out, due->block->stride);
        if (how.exact)
            due->refused |= refused;
    }
    due->out = NULL;
}

/* Go on where a look-up has led to the end of a block or out of it. The block's transform is due then. Returns the
 * run's state. */
FIC_INLINE int32_t end_block(mcu_run *run, block_reader *reader, const fic_pair *pair, decoding how, due_block *due)
{
    const fic_symbols *symbols = &run->block->ac_table->symbols;
    int32_t result = fic_end_block(&reader->bits, symbols, how.order, &reader->at, pair, reader->cells);
    if (result == FIC_BLOCK_UNFINISHED)
        return RUN_GOES_ON;
    if (FIC_UNLIKELY(result < 0))
        return result;
    transform_due(due, how);
    int16_t *cells = reader->cells;
    due->cells = cells;
    due->block = run->block;
    due->dc_only = result == FIC_BLOCK_DC_ONLY;
    due->out = run->out;
    reader->cells = run->spare;
    run->spare = cells;
    return begin_block(run, reader, how);
}

FIC_INLINE int32_t look_up(block_reader *reader, decoding how, const fic_pair **pair)
{
    return fic_decode_pair(&reader->bits, reader->pairs, how.pair_bits, how.order, &reader->at, pair, reader->cells);
}

/* A look-up waits for the one before: a transform in between fills the time. */
FIC_INLINE void decode_run(mcu_run *run, block_reader *from, decoding how, due_block *due)
{
    block_reader reader = *from;
    while (run->state == RUN_GOES_ON) {
        const fic_pair *pair;
        int32_t more = look_up(&reader, how, &pair) && look_up(&reader, how, &pair);
        fic_bits_refill(&reader.bits);
        transform_due(due, how);
        if (more) {
            while (look_up(&reader, how, &pair) && look_up(&reader, how, &pair) && look_up(&reader, how, &pair))
                fic_bits_refill(&reader.bits);
        }
        run->state = end_block(run, &reader, pair, how, due);
    }
    *from = reader;
}

enum { BOTH_GO_ON = -1 };

/* A look-up of each run. Which of the two, 0 or 1, is at the end of its block, or BOTH_GO_ON. */
FIC_INLINE int32_t look_up_in_turn(block_reader *a, block_reader *b, decoding how, const fic_pair **pair)
{
    if (!look_up(a, how, pair))
        return 0;
    if (!look_up(b, how, pair))
        return 1;
    return BOTH_GO_ON;
}

/* Two runs in turn, until one ends: the time from one look-up to the next suffices for one of the other run. */
FIC_INLINE void decode_two_runs(mcu_run run[2], block_reader reader[2], decoding how, due_block *due)
{
    block_reader a = reader[0], b = reader[1];
    while (run[0].state == RUN_GOES_ON && run[1].state == RUN_GOES_ON) {
        const fic_pair *pair;
        int32_t at_end;
        for (;;) {
            at_end = look_up_in_turn(&a, &b, how, &pair);
            if (at_end != BOTH_GO_ON)
                break;
            fic_bits_refill(&a.bits);
            fic_bits_refill(&b.bits);
            if (due->out != NULL)
                transform_due(due, how);
            at_end = look_up_in_turn(&a, &b, how, &pair);
            if (at_end != BOTH_GO_ON)
                break;
            at_end = look_up_in_turn(&a, &b, how, &pair);
            if (at_end != BOTH_GO_ON)
                break;
        }
        if (at_end == 0) {
            run[0].state = end_block(&run[0], &a, pair, how, due);
            fic_bits_refill(&b.bits);
        } else {
            run[1].state = end_block(&run[1], &b, pair, how, due);
            fic_bits_refill(&a.bits);
        }
    }
    reader[0] = a;
    reader[1] = b;
}

FIC_INLINE int32_t decode_runs(fic_scan *const scan[2], int32_t runs, int32_t row, int32_t column, int32_t mcus,
                               decoding how)
{
    mcu_run run[2];
    block_reader reader[2];
    for (int32_t i = 0; i < runs; i++) {
        run[i].stop = scan[i]->segment + scan[i]->segment_size + 8;
        run[i].spare = scan[i]->cells[1];
        run[i].end = run[i].blocks + scan[i]->num_blocks;
        run[i].block = run[i].end - 1; /* as at the end of an MCU before the first */
        run[i].mcus = mcus + 1;
        locate_blocks(scan[i], row + i, column, run[i].blocks);
        reader[i].bits = scan[i]->bits;
        reader[i].cells = scan[i]->cells[0];
        run[i].state = begin_block(&run[i], &reader[i], how);
    }
    due_block due = {.out = NULL, .refused = 0};
    if (runs == 2)
        decode_two_runs(run, reader, how, &due);
    int32_t code = FIC_OK;
    for (int32_t i = 0; i < runs && code == FIC_OK; i++) {
        decode_run(&run[i], &reader[i], how, &due);
        scan[i]->bits = reader[i].bits;
        code = run[i].state < 0 ? run_error(scan[i], run[i].state) : fic_scan_check(scan[i]);
    }
    transform_due(&due, how);
    if (how.exact && due.refused && code == FIC_OK)
        code = FIC_ERROR_UNSUPPORTED;
    for (int32_t i = 0; i < runs && code != FIC_OK; i++)
        memset(scan[i]->cells, 0, sizeof scan[i]->cells);
    return code;
}

static int32_t skip_run_scalar(fic_scan *scan, int64_t count)
{
    return skip_run(scan, count, fic_pair_bits);
}

static int32_t transform_scalar(int16_t *cells, const uint16_t *quantisers, int32_t dc_only, uint8_t *out,
                                int64_t stride)
{
    if (dc_only) {
        uint64_t line = fic_idct_dc(cells[0], quantisers[0]) * 0x0101010101010101u;
        for (int32_t y = 0; y < 8; y++)
            memcpy(out + y * stride, &line, 8);
    } else {
        fic_idct_block(cells, quantisers, out, stride);
    }
    memset(cells, 0, 64 * sizeof *cells);
    return 0;
}

static int32_t exact_transform_scalar(int16_t *cells, const uint16_t *quantisers, int32_t dc_only, uint8_t *out,
                                      int64_t stride)
{
    (void)dc_only;
    int32_t refused = fic_islow_inverse(cells, quantisers, out, stride);
    memset(cells, 0, 64 * sizeof *cells);
    return refused;
}

static int32_t decode_runs_scalar(fic_scan *const scan[2], int32_t runs, int32_t row, int32_t column, int32_t mcus)
{
    decoding how = {fic_pair_bits, transform_scalar, fic_coefficient_order, 0};
    return decode_runs(scan, runs, row, column, mcus, how);
}

static int32_t decode_exactly_scalar(fic_scan *scan, int32_t row, int32_t column, int32_t mcus)
{
    decoding how = {fic_pair_bits, exact_transform_scalar, fic_islow_order, 1};
    return decode_runs((fic_scan *const[2]){scan}, 1, row, column, mcus, how);
}

#if defined(__x86_64__)
/* In one instruction. */
FIC_TARGET_AVX2 FIC_INLINE uint32_t pair_bits_simd(uint64_t window, const fic_pair *pair)
{
    return (uint32_t)_bextr_u64(window, pair->shift, pair->size);
}
#else
#define pair_bits_simd fic_pair_bits
#endif

#if defined(FIC_SIMD)
/* BMI2 alone speeds up the bit reader: shifts by a variable count that leave the flags alone. */
FIC_TARGET_AVX2 static int32_t skip_run_avx2(fic_scan *scan, int64_t count)
{
    return skip_run(scan, count, pair_bits_simd);
}

/* Telling blocks with only a DC coefficient apart takes as long as their transform. Inlined into the loops it would
 * take a third more instructions, since its constants would be moved out of them to the stack. */
FIC_TARGET_AVX2 NOINLINE static int32_t transform_avx2(int16_t *cells, const uint16_t *quantisers, int32_t dc_only,
                                                       uint8_t *out, int64_t stride)
{
    (void)dc_only;
    fic_idct_block_avx2(cells, quantisers, out, stride);
    for (int i = 0; i < 4; i++)
        _mm256_store_si256((__m256i *)cells + i, _mm256_setzero_si256());
    return 0;
}

FIC_TARGET_AVX2 NOINLINE static int32_t exact_transform_avx2(int16_t *cells, const uint16_t *quantisers,
                                                             int32_t dc_only, uint8_t *out, int64_t stride)
{
    (void)dc_only;
    int32_t refused = fic_islow_inverse_avx2(cells, quantisers, out, stride);
    for (int i = 0; i < 4; i++)
        _mm256_store_si256((__m256i *)cells + i, _mm256_setzero_si256());
    return refused;
}

FIC_TARGET_AVX2 static int32_t decode_runs_avx2(fic_scan *const scan[2], int32_t runs, int32_t row, int32_t column,
                                                int32_t mcus)
{
    decoding how = {pair_bits_simd, transform_avx2, fic_coefficient_order, 0};
    return decode_runs(scan, runs, row, column, mcus, how);
}

FIC_TARGET_AVX2 static int32_t decode_exactly_avx2(fic_scan *scan, int32_t row, int32_t column, int32_t mcus)
{
    decoding how = {pair_bits_simd, exact_transform_avx2, fic_islow_order, 1};
    return decode_runs((fic_scan *const[2]){scan}, 1, row, column, mcus, how);
}
#define SELECT(name) (scan->simd ? name##_avx2 : name##_scalar)
#else
#define SELECT(name) name##_scalar
#endif

int32_t fic_scan_skip(fic_scan *scan, int64_t count, int32_t unread)
{
    while (count > 0) {
        int32_t code = fic_scan_restart(scan);
        if (code < 0)
            return code;
        int64_t run = count < scan->until_restart ? count : scan->until_restart;
        /* The unstuffing has found the next marker. */
        if (!unread || run < scan->until_restart) {
            code = SELECT(skip_run)(scan, run);
            if (code == FIC_OK)
                code = fic_scan_check(scan);
            if (code != FIC_OK)
                return code;
        }
        scan->until_restart -= run;
        count -= run;
    }
    return FIC_OK;
}

int32_t fic_scan_decode(fic_scan *scan, int32_t row, int32_t column, int32_t end)
{
    while (column < end) {
        int32_t code = fic_scan_restart(scan);
        if (code < 0)
            return code;
        int32_t run = end - column < scan->until_restart ? end - column : (int32_t)scan->until_restart;
        if (scan->exact)
            code = SELECT(decode_exactly)(scan, row, column, run);
        else
            code = SELECT(decode_runs)((fic_scan *const[2]){scan}, 1, row, column, run);
        if (code != FIC_OK)
            return code;
        scan->until_restart -= run;
        column += run;
    }
    return FIC_OK;
}

int32_t fic_scan_decode_two(fic_scan *scan, fic_scan *below, int32_t row, int32_t column, int32_t end)
{
    return SELECT(decode_runs)((fic_scan *const[2]){scan, below}, 2, row, column, end - column);
}
