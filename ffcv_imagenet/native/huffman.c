/* Builds the look-up tables of a Huffman code. See huffman.h. */
#include "huffman_build.h"

#include <string.h>

#include "fic.h"

/* codes: entries as of fic_symbol_entry. The one of the code at the head of the low `width` bits of `bits`; 0 when it
 * and the first of its magnitude bits take more bits than these. */
static uint32_t entry_within(const uint32_t *codes, uint32_t bits, uint32_t width, uint32_t *code_length)
{
    uint32_t head = bits << (16 - width) & 0xffffu, entry = codes[head >> (16 - FIC_LOOKUP_BITS)], size = entry >> 16;
    *code_length = FIC_ENTRY_LENGTH(entry) - size;
    return entry == 0 || (entry & FIC_ENTRY_LONG) || *code_length + (size > 0) > width ? 0 : entry;
}

/* The entry for an index of `width` bits, of one symbol or two. */
static fic_pair pair_entry(const uint32_t *codes, uint32_t index, uint32_t width, int32_t two)
{
    const fic_pair longer = {.first_step = FIC_PAIR_NONE, .steps = FIC_PAIR_LONG};
    fic_pair pair = longer;
    uint32_t code_length, last = entry_within(codes, index, width, &code_length);
    if (!last)
        return longer;
    uint32_t length = FIC_ENTRY_LENGTH(last), steps = FIC_ENTRY_STEP(last);
    if (two && length < width && steps != FIC_STEP_END) {
        uint32_t rest = width - length, size = last >> 16, second_length;
        int32_t value = fic_extend(index >> rest & ((1u << size) - 1), size);
        uint32_t second = entry_within(codes, index, rest, &second_length);
        if (second && value <= FIC_PAIR_VALUE_MAX && value >= -FIC_PAIR_VALUE_MAX &&
            length + FIC_ENTRY_LENGTH(second) <= FIC_PAIR_LENGTH_MAX) {
            pair.first_step = (uint8_t)steps;
            pair.first_value = (int8_t)value;
            length += FIC_ENTRY_LENGTH(second);
            steps += FIC_ENTRY_STEP(second);
            last = second;
            code_length = second_length;
            width = rest;
        }
    }
    if (length > FIC_PAIR_LENGTH_MAX)
        return longer;
    uint32_t size = last >> 16, negative = size > 0 && !(index >> (width - code_length - 1) & 1);
    pair.length = (uint8_t)length;
    pair.steps = (uint8_t)steps;
    pair.shift = (uint8_t)(64 - length);
    pair.size = (uint8_t)size;
    pair.offset = (int16_t)(negative ? 1 - (1 << size) : 0);
    return pair;
}

static fic_skip skip_entry(const uint32_t *codes, uint32_t index)
{
    uint32_t length = 0, steps = 0, code_length;
    while (length < FIC_SKIP_BITS && steps < FIC_SKIP_END) {
        uint32_t entry = entry_within(codes, index, FIC_SKIP_BITS - length, &code_length);
        if (!entry || length + FIC_ENTRY_LENGTH(entry) > FIC_SKIP_LENGTH_MAX)
            break;
        uint32_t step = FIC_ENTRY_STEP(entry) == FIC_STEP_END ? FIC_SKIP_END : FIC_ENTRY_STEP(entry);
        if (step < FIC_SKIP_END && steps + step > 63)
            break;
        length += FIC_ENTRY_LENGTH(entry);
        steps += step;
    }
    return (fic_skip){(uint8_t)length, (uint8_t)(length ? steps : FIC_SKIP_NONE)};
}

int32_t fic_huffman_build(fic_huffman_table *table, const uint8_t *spec, int32_t is_ac, int32_t skips)
{
    fic_symbols *symbols = &table->symbols;
    int32_t total = 0;
    for (int32_t i = 0; i < 16; i++)
        total += spec[i];
    if (total > 256)
        return FIC_ERROR_HUFFMAN_TABLE;
    if (table->num_values == total && total > 0 && table->has_skips >= skips && !memcmp(table->counts, spec, 16) &&
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
    uint32_t width = is_ac ? FIC_PAIR_BITS : FIC_DC_BITS;
    for (uint32_t index = 0; index < 1u << width; index++)
        table->pair[index] = pair_entry(codes, index, width, is_ac);
    for (uint32_t index = 0; is_ac && skips && index < 1u << FIC_SKIP_BITS; index++)
        table->skip[index] = skip_entry(codes, index);
    table->has_skips = skips;
    table->num_values = total;
    return FIC_OK;
}
