/* The entry-point index of one JPEG: layout and access (docs/mcu_index.md). */
#ifndef FIC_MCU_INDEX_H
#define FIC_MCU_INDEX_H

#include "portable.h"

#define FIC_INDEX_OFFSET_BITS 28
#define FIC_INDEX_DC_BITS 12
#define FIC_INDEX_DC_MAX 2047 /* |DC predictor| of an indexable file */

typedef struct {
    int64_t position; /* in bits from the JPEG's first byte */
    int32_t dc[3];    /* predictors */
} fic_entry_point;

FIC_INLINE int64_t fic_index_columns(int32_t mcus_per_row, int32_t every_k)
{
    return ((int64_t)mcus_per_row + every_k - 1) / every_k;
}

FIC_INLINE int64_t fic_index_size(int32_t mcus_per_row, int32_t mcu_rows, int32_t every_k)
{
    int64_t size = mcu_rows * (fic_index_columns(mcus_per_row, every_k) * 8 + 4);
    return (size + 7) / 8 * 8;
}

FIC_INLINE uint32_t fic_load_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* The entry of MCU column `column * every_k` in MCU row `row`; the arguments must be inside the index. */
FIC_INLINE fic_entry_point fic_index_entry(const uint8_t *index, int64_t columns, int32_t mcu_rows, int32_t row,
                                           int64_t column)
{
    const uint8_t *record = index + (row * columns + column) * 8;
    uint64_t bits = fic_load_le32(record) | (uint64_t)fic_load_le32(record + 4) << 32;
    fic_entry_point entry;
    entry.position = (int64_t)fic_load_le32(index + mcu_rows * columns * 8 + (int64_t)row * 4) +
                     (int64_t)(bits & ((1u << FIC_INDEX_OFFSET_BITS) - 1));
    for (int32_t i = 0; i < 3; i++) {
        int32_t field = (int32_t)(bits >> (FIC_INDEX_OFFSET_BITS + i * FIC_INDEX_DC_BITS)) & 4095;
        entry.dc[i] = field < 2048 ? field : field - 4096;
    }
    return entry;
}

#endif
