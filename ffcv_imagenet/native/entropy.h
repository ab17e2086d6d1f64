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

/* fic_decode_block's and fic_skip_block's results. */
#define FIC_BLOCK_BAD_CODE (-1)
#define FIC_BLOCK_BAD_COEFFICIENT (-2)
#define FIC_BLOCK_DC_ONLY 0
#define FIC_BLOCK_FULL 1

/*
 * Where the zigzag-ordered coefficients are stored. The inverse DCT multiplies pairs of coefficients whose horizontal
 * frequencies are (0,4), (2,6), (1,3), (5,7) for all eight vertical frequencies at a time, so those pairs are
 * neighbours: cell = 16 * pair + 2 * vertical frequency + position in the pair. The indices from 64 on are reached by
 * an end of block and by runs in damaged data (at most 62 + FIC_STEP_END).
 */
#define FIC_ORDER_SIZE 192
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
};
/* clang-format on */

/* The DC difference is added to *dc (T.81 F.2.2.1). */
FIC_INLINE int32_t fic_decode_dc(fic_bits *bits, const fic_symbols *table, int32_t *dc)
{
    int32_t difference;
    if (FIC_UNLIKELY(fic_decode_symbol(bits, table, 0, &difference) == 0))
        return FIC_BLOCK_BAD_CODE;
    *dc += difference;
    return FIC_UNLIKELY((uint32_t)(*dc + 32768) > 65535u) ? FIC_BLOCK_BAD_COEFFICIENT : 0;
}

/*
 * One look-up's worth of AC coefficients. *k is the index of the last one decoded. Returns 0 at the block's end (*k is
 * then 63 or at least FIC_STEP_END) and for damaged data. Of bits->available only the lowest 6 bits count.
 */
FIC_INLINE int32_t fic_decode_coefficients(fic_bits *bits, const fic_huffman_table *table, uint32_t *k, int16_t *cells)
{
    uint32_t pair = table->pair[bits->window >> (64 - FIC_PAIR_BITS)];
    uint32_t first = *k + FIC_PAIR_FIRST_STEP(pair), last = *k + FIC_PAIR_STEPS(pair);
    /* An absent first symbol stores its 0 where nothing has been stored yet, which is cheaper than asking. */
    cells[fic_coefficient_order[first]] = (int16_t)FIC_PAIR_VALUE(pair);
    cells[fic_coefficient_order[last]] = (int16_t)fic_magnitude(bits->window, pair, FIC_PAIR_SIZE(pair));
    if (FIC_LIKELY(last < 63)) {
        *k = last;
        bits->window <<= pair & 63;
        bits->available = (int32_t)((uint32_t)bits->available - pair); /* the lowest 6 bits */
        return 1;
    }
    /* No bit after coefficient 63 belongs to this block: go singly when that is the first one's, or exceeded. */
    int32_t alone = FIC_PAIR_FIRST_STEP(pair) == FIC_PAIR_NONE, end = FIC_PAIR_STEPS(pair) == FIC_PAIR_END;
    if (FIC_LIKELY(FIC_PAIR_LENGTH(pair) && (end ? alone | (first < 63) : last == 63))) {
        *k = end ? (alone ? *k : first) + FIC_STEP_END : 63;
        fic_bits_consume(bits, FIC_PAIR_LENGTH(pair));
        return 0;
    }
    int32_t value;
    uint32_t step = fic_decode_symbol(bits, &table->symbols, 1, &value);
    *k += step;
    cells[fic_coefficient_order[*k]] = (int16_t)value;
    return *k < 63 && step != 0;
}

/*
 * Decode one block. `cells` (FIC_BLOCK_CELLS of them, the first 64 zero) receives the coefficients, not yet
 * dequantised; *dc is the component's DC predictor. Returns FIC_BLOCK_DC_ONLY, FIC_BLOCK_FULL or an error.
 */
FIC_INLINE int32_t fic_decode_block(fic_bits *bits, const fic_huffman_table *dc_table,
                                    const fic_huffman_table *ac_table, int32_t *dc, int16_t *cells)
{
    fic_bits_refill(bits);
    int32_t failure = fic_decode_dc(bits, &dc_table->symbols, dc);
    if (FIC_UNLIKELY(failure))
        return failure;
    cells[0] = (int16_t)*dc;

    uint32_t k = 0;
    /* Two look-ups a refill: the first one here may follow the DC symbol (27 + 26 bits). */
    while (fic_decode_coefficients(bits, ac_table, &k, cells)) {
        fic_bits_refill(bits);
        if (!fic_decode_coefficients(bits, ac_table, &k, cells))
            break;
    }
    bits->available &= 63;
    if (k == FIC_STEP_END)
        return FIC_BLOCK_DC_ONLY;
    if (FIC_LIKELY(k == 63 || k > FIC_STEP_END))
        return FIC_BLOCK_FULL;
    return k < 63 ? FIC_BLOCK_BAD_CODE : FIC_BLOCK_BAD_COEFFICIENT;
}

/*
 * fic_decode_block one symbol at a time: for GPUs, whose threads share small tables, a copy of fic_coefficient_order
 * among them. Cells lie FIC_CELL_STRIDE apart, up to FIC_CELL_UNUSED.
 */
FIC_INLINE int32_t fic_decode_block_singly(fic_bits *bits, const fic_symbols *dc_table, const fic_symbols *ac_table,
                                           const uint8_t order[FIC_ORDER_SIZE], int32_t *dc, int16_t *cells)
{
    for (int32_t i = 0; i < 64; i++)
        cells[i * FIC_CELL_STRIDE] = 0;
    fic_bits_refill(bits);
    int32_t failure = fic_decode_dc(bits, dc_table, dc);
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
                                  int32_t *dc)
{
    fic_bits_refill(bits);
    int32_t failure = fic_decode_dc(bits, &dc_table->symbols, dc);
    if (FIC_UNLIKELY(failure))
        return failure;

    uint32_t k = 0;
    for (;;) {
        fic_bits_refill(bits);
        uint32_t after = 0;
        for (int32_t i = 0; i < 4; i++) {
            uint32_t entry = ac_table->skip[bits->window >> (64 - FIC_SKIP_BITS)];
            after = k + (entry >> 8);
            if (after >= 63)
                break;
            k = after;
            fic_bits_consume(bits, entry & 63u);
        }
        if (FIC_LIKELY(after < 63))
            continue;
        if (FIC_LIKELY(after == 63 || (after >= FIC_SKIP_END && after <= 62 + FIC_SKIP_END))) {
            fic_bits_consume(bits, ac_table->skip[bits->window >> (64 - FIC_SKIP_BITS)] & 63u);
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
