/*
 * Blocks of the entropy-coded segment (T.81 F.2.2): decode one to coefficients, or step over it.
 */
#ifndef FIC_ENTROPY_H
#define FIC_ENTROPY_H

#include "huffman.h"

/* Coefficients of one block, in the order of fic_coefficient_order, and one cell for what is never read. */
#define FIC_BLOCK_CELLS 80
#define FIC_CELL_UNUSED 64

/* Distance of a block's cells in memory; more than 1 where threads that work side by side keep theirs interleaved. */
#ifndef FIC_CELL_STRIDE
#define FIC_CELL_STRIDE 1
#endif

/* What became of a block. */
#define FIC_BLOCK_BAD_CODE (-1)
#define FIC_BLOCK_BAD_COEFFICIENT (-2)
#define FIC_BLOCK_DC_ONLY 0
#define FIC_BLOCK_FULL 1
#define FIC_BLOCK_UNFINISHED 2

/*
 * Where the zigzag-ordered coefficients are stored. The inverse DCT multiplies pairs of coefficients whose horizontal
 * frequencies are (0,4), (2,6), (1,3), (5,7) for all eight vertical frequencies at a time, so those pairs are
 * neighbours: cell = 16 * pair + 2 * vertical frequency + position in the pair. The indices from 64 on are reached by
 * an end of block and by runs in damaged data (at most 62 + 16 + FIC_STEP_END).
 */
#define FIC_ORDER_SIZE 208
/* clang-format off */
FIC_CONSTANT uint8_t fic_coefficient_order[FIC_ORDER_SIZE] = {
    0, 32, 2, 4, 34, 16, 33, 18, 36, 6, 8, 38, 20, 35, 1, 48,
    3, 37, 22, 40, 10, 12, 42, 24, 39, 5, 50, 17, 49, 19, 52, 7,
    41, 26, 44, 14, 46, 28, 43, 9, 54, 21, 51, 53, 23, 56, 11, 45,
    30, 47, 13, 58, 25, 55, 57, 27, 60, 15, 62, 29, 59, 61, 31, 63,
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

/* Add a DC difference to *dc (T.81 F.2.2.1). Returns 0, or an error where no encoder of 8-bit samples gets to. */
FIC_INLINE int32_t fic_add_dc(int32_t *dc, int32_t difference)
{
    *dc += difference;
    return FIC_UNLIKELY((uint32_t)(*dc + 32768) > 65535u) ? FIC_BLOCK_BAD_COEFFICIENT : 0;
}

FIC_INLINE int32_t fic_decode_dc_singly(fic_bits *bits, const fic_symbols *table, int32_t *dc)
{
    int32_t difference;
    if (FIC_UNLIKELY(fic_decode_symbol(bits, table, 0, &difference) == 0))
        return FIC_BLOCK_BAD_CODE;
    return fic_add_dc(dc, difference);
}

/* The magnitude bits of a pair's last symbol. */
typedef uint32_t fic_bits_function(uint64_t window, const fic_pair *pair);

FIC_INLINE uint32_t fic_pair_bits(uint64_t window, const fic_pair *pair)
{
    return (uint32_t)(window >> pair->shift) & ~(~0u << pair->size);
}

/* Begin a block with its DC coefficient. Two look-ups' worth of bits are left. */
FIC_INLINE int32_t fic_decode_dc(fic_bits *bits, const fic_huffman_table *table, fic_bits_function pair_bits,
                                 int32_t *dc)
{
    fic_bits_refill(bits);
    const fic_pair *pair = &table->pair[bits->window >> (64 - FIC_DC_BITS)];
    if (FIC_UNLIKELY(pair->length == 0)) {
        int32_t failure = fic_decode_dc_singly(bits, &table->symbols, dc);
        fic_bits_refill(bits);
        return failure;
    }
    int32_t difference = (int32_t)pair_bits(bits->window, pair) + pair->offset;
    fic_bits_consume(bits, pair->length);
    return fic_add_dc(dc, difference);
}

/*
 * One look-up's worth of AC coefficients; after fic_decode_dc two of them, and after fic_bits_refill three. *at points
 * into `order`, fic_coefficient_order or another one like it, at the last coefficient's cell. Returns 0, and consumes
 * nothing, where *pair leads to the block's end or out of it: fic_end_block comes next.
 */
FIC_INLINE int32_t fic_decode_pair(fic_bits *bits, const fic_pair *pairs, fic_bits_function pair_bits,
                                   const uint8_t order[FIC_ORDER_SIZE], const uint8_t **at, const fic_pair **pair,
                                   int16_t *cells)
{
    const fic_pair *entry = *pair = &pairs[bits->window >> (64 - FIC_PAIR_BITS)];
    const uint8_t *first = *at + entry->first_step, *last = *at + entry->steps;
    /* An absent first symbol stores its 0 where nothing has been stored yet, which is cheaper than asking. */
    cells[*first] = entry->first_value;
    cells[*last] = (int16_t)((int32_t)pair_bits(bits->window, entry) + entry->offset);
    if (FIC_UNLIKELY(last >= order + 63))
        return 0;
    *at = last;
    fic_bits_consume(bits, entry->length);
    return 1;
}

/* Returns FIC_BLOCK_DC_ONLY, FIC_BLOCK_FULL, an error, or FIC_BLOCK_UNFINISHED: the block goes on, the bits are
 * refilled. */
FIC_INLINE int32_t fic_end_block(fic_bits *bits, const fic_symbols *symbols, const uint8_t order[FIC_ORDER_SIZE],
                                 const uint8_t **at, const fic_pair *pair, int16_t *cells)
{
    uint32_t k = (uint32_t)(*at - order), last = k + pair->steps;
    /* No bit after coefficient 63 belongs to this block: go singly when that is the first one's, or exceeded. */
    if (FIC_LIKELY(last == 63 || last - FIC_STEP_END < 63)) {
        fic_bits_consume(bits, pair->length);
        return last == FIC_STEP_END ? FIC_BLOCK_DC_ONLY : FIC_BLOCK_FULL;
    }
    fic_bits_refill(bits);
    uint32_t entry = fic_huffman_search(symbols, 1, bits->window, 1), step = FIC_ENTRY_STEP(entry);
    if (FIC_UNLIKELY(step == 0))
        return FIC_BLOCK_BAD_CODE;
    k += step;
    *at += step;
    cells[**at] = (int16_t)fic_magnitude(bits->window, FIC_ENTRY_LENGTH(entry), entry >> 16);
    fic_bits_consume(bits, FIC_ENTRY_LENGTH(entry));
    if (k < 63) {
        fic_bits_refill(bits);
        return FIC_BLOCK_UNFINISHED;
    }
    if (k == FIC_STEP_END)
        return FIC_BLOCK_DC_ONLY;
    return k == 63 || k > FIC_STEP_END ? FIC_BLOCK_FULL : FIC_BLOCK_BAD_COEFFICIENT;
}

/*
 * Decode a block one symbol at a time: for GPUs, whose threads share small tables, a copy of fic_coefficient_order
 * among them. Cells lie FIC_CELL_STRIDE apart, up to FIC_CELL_UNUSED, and receive the coefficients, not yet
 * dequantised; *dc is the component's DC predictor. Returns FIC_BLOCK_DC_ONLY, FIC_BLOCK_FULL or an error.
 */
FIC_INLINE int32_t fic_decode_block_singly(fic_bits *bits, const fic_symbols *dc_table, const fic_symbols *ac_table,
                                           const uint8_t order[FIC_ORDER_SIZE], int32_t *dc, int16_t *cells)
{
    for (int32_t i = 0; i < 64; i++)
        cells[i * FIC_CELL_STRIDE] = 0;
    fic_bits_refill(bits);
    int32_t failure = fic_decode_dc_singly(bits, dc_table, dc);
    if (FIC_UNLIKELY(failure))
        return failure;
    cells[0] = (int16_t)*dc;

    uint32_t k = 0, step;
    do {
        if (bits->available < 32) /* a symbol has at most 26 bits */
            fic_bits_refill(bits);
        int32_t value;
        step = fic_decode_symbol(bits, ac_table, 1, &value);
        k += step;
        cells[order[k] * FIC_CELL_STRIDE] = (int16_t)value;
    } while (k < 63 && step != 0);
    if (step == 0)
        return FIC_BLOCK_BAD_CODE;
    if (k == FIC_STEP_END)
        return FIC_BLOCK_DC_ONLY;
    return k == 63 || k > FIC_STEP_END ? FIC_BLOCK_FULL : FIC_BLOCK_BAD_COEFFICIENT;
}

/* Step over one block, keeping the DC predictor. Returns 0 or an error. */
FIC_INLINE int32_t fic_skip_block(fic_bits *bits, const fic_huffman_table *dc_table, const fic_huffman_table *ac_table,
                                  fic_bits_function pair_bits, int32_t *dc)
{
    int32_t failure = fic_decode_dc(bits, dc_table, pair_bits, dc);
    if (FIC_UNLIKELY(failure))
        return failure;

    uint32_t k = 0;
    for (;;) {
        fic_bits_refill(bits);
        uint32_t after = 0;
        for (int32_t i = 0; i < 3; i++) {
            const fic_skip *entry = &ac_table->skip[bits->window >> (64 - FIC_SKIP_BITS)];
            after = k + entry->steps;
            if (after >= 63)
                break;
            k = after;
            fic_bits_consume(bits, entry->length);
        }
        if (FIC_LIKELY(after < 63))
            continue;
        if (FIC_LIKELY(after == 63 || (after >= FIC_SKIP_END && after <= 62 + FIC_SKIP_END))) {
            fic_bits_consume(bits, ac_table->skip[bits->window >> (64 - FIC_SKIP_BITS)].length);
            return 0;
        }
        /* A long symbol, or several of which one ends the block: go singly. */
        fic_bits_refill(bits);
        int32_t value;
        uint32_t step = fic_decode_symbol(bits, &ac_table->symbols, 1, &value);
        if (FIC_UNLIKELY(step == 0))
            return FIC_BLOCK_BAD_CODE;
        k += step;
        if (k == 63 || k >= FIC_STEP_END)
            return 0;
        if (FIC_UNLIKELY(k > 63))
            return FIC_BLOCK_BAD_COEFFICIENT;
    }
}

#endif
