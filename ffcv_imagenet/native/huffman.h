/*
 * Huffman tables and the bit reader (ITU-T T.81, C.2, F.2.2).
 *
 * One look-up yields the length of code and magnitude bits together, the run of zeros and the coefficient's value, of
 * two coefficients where both fit: the chain from one look-up to the next is a shift, a load and a shift. Another
 * table, for blocks that are skipped, steps over as many symbols as fit into its index.
 */
#ifndef FIC_HUFFMAN_H
#define FIC_HUFFMAN_H

#include "portable.h"

#define FIC_LOOKUP_BITS 10
#define FIC_PAIR_BITS 11
#define FIC_DC_BITS 9
#define FIC_SKIP_BITS 11

/*
 * Look-up entry: bits 0-5 length of code plus magnitude bits, bits 8-15 step (how far the coefficient index advances:
 * run + 1), bits 16-31 value. FIC_ENTRY_MAGNITUDE: the magnitude bits did not fit into the index, bits 16-31 hold
 * their number instead of the value. FIC_ENTRY_LONG: the code itself did not fit. 0: no such code.
 */
#define FIC_ENTRY_MAGNITUDE 0x40u
#define FIC_ENTRY_LONG 0x80u
#define FIC_ENTRY_LENGTH(entry) ((entry) & 63u)
#define FIC_ENTRY_STEP(entry) (((entry) >> 8) & 255u)

/* The step of end-of-block takes the index beyond any that a run can reach (at most 62 + 16). */
#define FIC_STEP_END 128u

/*
 * Pair entry: one or two symbols of which all but the last one's magnitude bits lie in the index, and of these the
 * first, which is the sign. Its fields are bytes, since loads cost less here than shifts. A symbol alone has
 * FIC_PAIR_NONE as the first step and 0 as that one's value. An end of block adds FIC_STEP_END to the steps of all.
 * FIC_PAIR_LONG as the steps leaves the block from any index: the first code needs a look at the symbols.
 */
typedef struct {
    uint8_t length; /* of all, 0 with FIC_PAIR_LONG */
    uint8_t first_step;
    int8_t first_value;
    uint8_t steps;       /* of all */
    uint8_t shift, size; /* where the last one's magnitude bits are in the window, and their number */
    int16_t offset;      /* what makes them its value when it is added */
} fic_pair;

#define FIC_PAIR_NONE 63u
#define FIC_PAIR_LONG 64u
#define FIC_PAIR_VALUE_MAX 127
#define FIC_PAIR_LENGTH_MAX 18 /* three fit into what a refill provides */

/*
 * Skip entry: as many symbols as fit, of the last one perhaps without the magnitude bits. An end of block, last in its
 * entry, counts FIC_SKIP_END steps, so that it is told apart by the sum, and the sum shows whether a step before it
 * left the block. Without a symbol that fits there are FIC_SKIP_NONE steps and no bits.
 */
typedef struct {
    uint8_t length, steps;
} fic_skip;

#define FIC_SKIP_END 129u
#define FIC_SKIP_NONE 64u
#define FIC_SKIP_LENGTH_MAX 18 /* three fit into what a refill provides */

/* What decodes symbols one by one. */
typedef struct {
    uint32_t lookup[1 << FIC_LOOKUP_BITS];
    uint32_t limit[17]; /* codes of up to n bits, left-justified to 16 bits, lie below limit[n] */
    int32_t offset[17]; /* values[offset[n] + code] for a code of n bits */
    uint8_t values[256];
} fic_symbols;

typedef struct {
    fic_symbols symbols;
    fic_pair pair[1 << FIC_PAIR_BITS]; /* of a DC table the first 1 << FIC_DC_BITS, one symbol each */
    fic_skip skip[1 << FIC_SKIP_BITS]; /* AC tables only, and of these where has_skips is 1 */
    uint8_t counts[16];
    int32_t num_values;
    int32_t has_skips;
} fic_huffman_table;

/* As wide as the window, so that a CPU counts and shifts by the same register. */
#if defined(__CUDACC__)
typedef int32_t fic_bit_count;
#else
typedef int64_t fic_bit_count;
#endif

/* MSB-first bit reader over bytes without stuffing. FIC_SEGMENT_PADDING bytes must follow. */
typedef struct {
    uint64_t window; /* the next bit is bit 63 */
    const uint8_t *next;
    fic_bit_count available; /* valid bits in the window */
} fic_bits;

/* Bytes that the reader may run over before a check after each MCU stops it: six blocks of 27 + 63 * 26 bits, and two
 * windows. */
#define FIC_SEGMENT_PADDING 1536

#if defined(FIC_ALIGNED_LOADS)
/* A GPU would otherwise find out at every load whose memory an address belongs to. */
#if defined(__CUDACC__)
#define FIC_LOAD_WORD(word) __ldg(word)
#else
#define FIC_LOAD_WORD(word) (*(word))
#endif

FIC_INLINE uint32_t fic_swap32(uint32_t x)
{
    return x >> 24 | (x >> 8 & 0xff00u) | (x << 8 & 0xff0000u) | x << 24;
}

/* For little-endian processors that load aligned words only. Reads up to three bytes on either side of the eight. */
FIC_INLINE uint64_t fic_load_be64(const uint8_t *p)
{
    uint32_t past = (uint32_t)((uintptr_t)p & 3u), shift = 8 * past;
    const uint32_t *words = (const uint32_t *)(p - past);
    uint32_t first = FIC_LOAD_WORD(words), second = FIC_LOAD_WORD(words + 1), third = FIC_LOAD_WORD(words + 2);
    uint32_t head = (uint32_t)(((uint64_t)second << 32 | first) >> shift);
    uint32_t tail = (uint32_t)(((uint64_t)third << 32 | second) >> shift);
    return (uint64_t)fic_swap32(head) << 32 | fic_swap32(tail);
}
#else
FIC_INLINE uint64_t fic_load_be64(const uint8_t *p)
{
    return (uint64_t)p[0] << 56 | (uint64_t)p[1] << 48 | (uint64_t)p[2] << 40 | (uint64_t)p[3] << 32 |
           (uint64_t)p[4] << 24 | (uint64_t)p[5] << 16 | (uint64_t)p[6] << 8 | (uint64_t)p[7];
}
#endif

/* Afterwards 56 to 63 bits are available: two symbols, a code having up to 16 and a magnitude up to 11 bits. */
FIC_INLINE void fic_bits_refill(fic_bits *bits)
{
    bits->window |= fic_load_be64(bits->next) >> bits->available;
    bits->next += ~bits->available >> 3 & 7;
    bits->available |= 56;
}

FIC_INLINE void fic_bits_consume(fic_bits *bits, uint32_t count)
{
    bits->window <<= count;
    bits->available -= (fic_bit_count)count;
}

/* The entry of a symbol whose code has `length` bits, the value left to its magnitude bits; 0 when 8-bit samples cannot
 * produce the symbol (T.81 F.1.2: DC categories to 11, AC to 10, size 0 only as end of block or 16 zeros). */
FIC_INLINE uint32_t fic_symbol_entry(int32_t is_ac, uint32_t symbol, uint32_t length)
{
    uint32_t run = symbol >> 4, size = symbol & 15u, step = run + 1;
    if (!is_ac) {
        if (symbol > 11)
            return 0;
    } else if (size > 10 || (size == 0 && run != 0 && run != 15)) {
        return 0;
    } else if (symbol == 0) {
        step = FIC_STEP_END;
    }
    return size << 16 | step << 8 | FIC_ENTRY_MAGNITUDE | (length + size);
}

/* Find the code at the head of the window, which has at least `shortest` bits; an entry as of fic_symbol_entry. Without
 * a branch for each length: they would be hard to predict. */
FIC_INLINE uint32_t fic_huffman_search(const fic_symbols *table, int32_t is_ac, uint64_t window, uint32_t shortest)
{
    uint32_t head = (uint32_t)(window >> 48), length = shortest;
    for (uint32_t bits = shortest; bits < 16; bits++)
        length += head >= table->limit[bits];
    if (FIC_UNLIKELY(head >= table->limit[16]))
        return 0;
    int32_t code = (int32_t)(head >> (16 - length));
    return fic_symbol_entry(is_ac, table->values[table->offset[length] + code], length);
}

/* T.81 F.2.2.1, EXTEND. */
FIC_INLINE int32_t fic_extend(uint32_t magnitude, uint32_t size)
{
    int32_t value = (int32_t)magnitude, less = value + 1 + (int32_t)(~0u << (size & 31));
    return less + value < 0 ? less : value;
}

/* The value whose `size` magnitude bits are the last of the window's first `length` bits. */
FIC_INLINE int32_t fic_magnitude(uint64_t window, uint32_t length, uint32_t size)
{
    return fic_extend((uint32_t)(window >> ((64 - length) & 63)) & ~(~0u << (size & 31)), size);
}

/* Decode one symbol and consume it with its magnitude bits. Returns its step, 0 when there is no such code. */
FIC_INLINE uint32_t fic_decode_symbol(fic_bits *bits, const fic_symbols *table, int32_t is_ac, int32_t *value)
{
    uint32_t entry = table->lookup[bits->window >> (64 - FIC_LOOKUP_BITS)];
    if (FIC_LIKELY(!(entry & (FIC_ENTRY_LONG | FIC_ENTRY_MAGNITUDE)))) {
        *value = (int32_t)entry >> 16;
    } else {
        if (entry & FIC_ENTRY_LONG)
            entry = fic_huffman_search(table, is_ac, bits->window, FIC_LOOKUP_BITS + 1);
        *value = fic_magnitude(bits->window, FIC_ENTRY_LENGTH(entry), entry >> 16);
    }
    fic_bits_consume(bits, FIC_ENTRY_LENGTH(entry));
    return FIC_ENTRY_STEP(entry);
}

/* Fill `limit` and `offset` from the numbers of codes of 1 to 16 bits (T.81 C.2). 0: there are more than the bits
 * allow, or one of them consists of ones alone, which T.81 reserves and libjpeg refuses. */
FIC_INLINE int32_t fic_huffman_ranges(fic_symbols *table, const uint8_t counts[16])
{
    uint32_t code = 0;
    int32_t first = 0;
    for (uint32_t length = 1; length <= 16; length++) {
        uint32_t count = counts[length - 1];
        if (code + count >= 1u << length)
            return 0;
        table->offset[length] = first - (int32_t)code;
        code += count;
        table->limit[length] = code << (16 - length);
        first += (int32_t)count;
        code <<= 1;
    }
    return 1;
}

/* One entry of `lookup`, when everything else is there: each on its own, so that many threads can fill it. */
FIC_INLINE uint32_t fic_lookup_entry(const fic_symbols *table, int32_t is_ac, uint32_t index)
{
    uint32_t head = index << (16 - FIC_LOOKUP_BITS);
    for (uint32_t length = 1; length <= FIC_LOOKUP_BITS; length++) {
        if (head >= table->limit[length])
            continue;
        int32_t code = (int32_t)(head >> (16 - length));
        uint32_t entry = fic_symbol_entry(is_ac, table->values[table->offset[length] + code], length);
        uint32_t size = entry >> 16, spare = FIC_LOOKUP_BITS - length;
        if (entry == 0 || size > spare)
            return entry;
        int32_t value = fic_extend(index >> (spare - size) & ((1u << size) - 1), size);
        return (uint32_t)value << 16 | (entry & 0xff3fu);
    }
    return head < table->limit[16] ? FIC_ENTRY_LONG : 0;
}

#endif
