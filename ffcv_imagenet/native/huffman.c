/* Builds the look-up tables of a Huffman code. See huffman.h. */
#include "huffman_build.h"

#include <string.h>

#include "fic.h"

/* codes: entries as of fic_symbol_entry. The one of the code at the head of the low `width` bits of `bits`; 0 when it
 * has more bits than these. */
static uint32_t entry_within(const uint32_t *codes, uint32_t bits, uint32_t width, uint32_t *code_length)
{
    bits = bits << (FIC_PAIR_BITS - width) & ((1u << FIC_PAIR_BITS) - 1);
    uint32_t entry = codes[bits >> (FIC_PAIR_BITS - FIC_LOOKUP_BITS)];
    *code_length = FIC_ENTRY_LENGTH(entry) - (entry >> 16);
    return entry == 0 || (entry & FIC_ENTRY_LONG) || *code_length > width ? 0 : entry;
}

static uint32_t pair_steps(uint32_t entry, uint32_t before)
{
    return FIC_ENTRY_STEP(entry) == FIC_STEP_END ? FIC_PAIR_END : before + FIC_ENTRY_STEP(entry);
}

static uint32_t pair_entry(const uint32_t *codes, uint32_t index)
{
    uint32_t code_length;
    uint32_t first = entry_within(codes, index, FIC_PAIR_BITS, &code_length);
    if (!first)
        return FIC_PAIR_LONG;
    uint32_t length = FIC_ENTRY_LENGTH(first), size = first >> 16, step = FIC_ENTRY_STEP(first);
    if (length < FIC_PAIR_BITS && step != FIC_STEP_END) {
        uint32_t spare = FIC_PAIR_BITS - length;
        int32_t value = fic_extend(index >> spare & ((1u << size) - 1), size);
        uint32_t second = entry_within(codes, index, spare, &code_length);
        if (second && value <= FIC_PAIR_VALUE_MAX && value >= -FIC_PAIR_VALUE_MAX)
            return (uint32_t)value << 27 | (second >> 16) << 16 | pair_steps(second, step) << 21 | step << 8 |
                   (length + FIC_ENTRY_LENGTH(second));
    }
    return size << 16 | pair_steps(first, 0) << 21 | FIC_PAIR_NONE << 8 | length;
}

static void build_skip(fic_huffman_table *table)
{
    for (uint32_t index = 0; index < 1u << FIC_SKIP_BITS; index++) {
        uint32_t used = 0, steps = 0;
        for (;;) {
            uint32_t rest = index << used & ((1u << FIC_SKIP_BITS) - 1);
            uint32_t entry = table->symbols.lookup[rest >> (FIC_SKIP_BITS - FIC_LOOKUP_BITS)];
            uint32_t length = FIC_ENTRY_LENGTH(entry), step = FIC_ENTRY_STEP(entry);
            /* Bits after the index count as zero here; an entry that needs them is too long by its length. */
            if (entry == 0 || (entry & FIC_ENTRY_LONG) || used + length > FIC_SKIP_BITS)
                break;
            if (step == FIC_STEP_END) {
                used += length;
                steps += FIC_SKIP_END;
                break;
            }
            if (steps + step > 63)
                break;
            used += length;
            steps += step;
        }
        table->skip[index] = (uint16_t)(used ? steps << 8 | used : FIC_SKIP_NONE);
    }
}

int32_t fic_huffman_build(fic_huffman_table *table, const uint8_t *spec, int32_t is_ac)
{
    fic_symbols *symbols = &table->symbols;
    int32_t total = 0;
    for (int32_t i = 0; i < 16; i++)
        total += spec[i];
    if (total > 256)
        return FIC_ERROR_HUFFMAN_TABLE;
    if (table->num_values == total && total > 0 && !memcmp(table->counts, spec, 16) &&
        !memcmp(symbols->values, spec + 16, (size_t)total))
        return FIC_OK;

    table->num_values = 0;
    memcpy(table->counts, spec, 16);
    memset(symbols->values, 0, sizeof symbols->values);
    memcpy(symbols->values, spec + 16, (size_t)total);
    memset(symbols->lookup, 0, sizeof symbols->lookup);
    if (!fic_huffman_ranges(symbols, spec))
        return FIC_ERROR_HUFFMAN_TABLE;

    uint32_t codes[1 << FIC_LOOKUP_BITS] = {0};
    uint32_t code = 0;
    int32_t first = 0;
    for (uint32_t length = 1; length <= 16; length++) {
        uint32_t count = spec[length - 1];
        for (uint32_t i = 0; i < count; i++, code++) {
            uint32_t entry = fic_symbol_entry(is_ac, symbols->values[first + (int32_t)i], length);
            if (length > FIC_LOOKUP_BITS) {
                codes[code >> (length - FIC_LOOKUP_BITS)] = FIC_ENTRY_LONG;
                symbols->lookup[code >> (length - FIC_LOOKUP_BITS)] = FIC_ENTRY_LONG;
                continue;
            }
            uint32_t size = entry >> 16, spare = FIC_LOOKUP_BITS - length;
            uint32_t *slot = symbols->lookup + (code << spare), *code_slot = codes + (code << spare);
            for (uint32_t tail = 0; tail < 1u << spare; tail++) {
                slot[tail] = code_slot[tail] = entry;
                if (entry && size <= spare) {
                    int32_t value = fic_extend(tail >> (spare - size), size);
                    slot[tail] = (uint32_t)value << 16 | (entry & 0xff3fu);
                }
            }
        }
        first += (int32_t)count;
        code <<= 1;
    }
    if (is_ac) {
        for (uint32_t index = 0; index < 1u << FIC_PAIR_BITS; index++)
            table->pair[index] = pair_entry(codes, index);
        build_skip(table);
    }
    table->num_values = total;
    return FIC_OK;
}
