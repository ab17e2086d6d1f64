/* Writes the entry-point index of a JPEG and finds the ends of its runs. See fic.h and mcu_index.h. */
#include <string.h>

#include "decoder.h"

static void store_le32(uint8_t *p, uint32_t value)
{
    for (int32_t i = 0; i < 4; i++)
        p[i] = (uint8_t)(value >> 8 * i);
}

int32_t fic_index_store_row(uint8_t *index, int64_t columns, int32_t mcu_rows, int32_t row, int64_t position)
{
    store_le32(index + mcu_rows * columns * 8 + (int64_t)row * 4, (uint32_t)position);
    return position <= UINT32_MAX;
}

int32_t fic_index_store_entry(uint8_t *index, int64_t columns, int32_t row, int64_t column, int64_t offset,
                              const int32_t dc[3])
{
    if (offset >> FIC_INDEX_OFFSET_BITS)
        return 0;
    uint64_t bits = (uint64_t)offset;
    for (int32_t i = 0; i < 3; i++) {
        if (dc[i] < -FIC_INDEX_DC_MAX - 1 || dc[i] > FIC_INDEX_DC_MAX)
            return 0;
        bits |= (uint64_t)(dc[i] & 4095) << (FIC_INDEX_OFFSET_BITS + i * FIC_INDEX_DC_BITS);
    }
    uint8_t *record = index + (row * columns + column) * 8;
    store_le32(record, (uint32_t)bits);
    store_le32(record + 4, (uint32_t)(bits >> 32));
    return 1;
}

/* After a restart marker, positions count from the new segment. */
static int32_t follow_restart(fic_scan *scan, int64_t *raw, int64_t *plain)
{
    int32_t code = fic_scan_restart(scan);
    if (code == 1) {
        *raw = scan->segment_raw;
        *plain = 0;
    }
    return code < 0 ? code : FIC_OK;
}

int64_t fic_build_index(fic_decoder *decoder, const uint8_t *jpeg, int64_t jpeg_size, int32_t k, uint8_t *out,
                        int64_t capacity)
{
    if (!decoder || !jpeg || jpeg_size < 0 || k < 1 || k > 255)
        return FIC_ERROR_ARGUMENT;
    fic_jpeg_header *header = &decoder->header;
    fic_scan *scan = &decoder->scan;
    int32_t code = fic_parse_header(jpeg, jpeg_size, header);
    if (code != FIC_OK)
        return code;
    if (!header->native)
        return 0;
    int64_t columns = fic_index_columns(header->mcus_per_row, k);
    int64_t size = fic_index_size(header->mcus_per_row, header->mcu_rows, k);
    if (!out)
        return size;
    if (capacity < size)
        return FIC_ERROR_CAPACITY;
    code = fic_prepare_scan(decoder, jpeg, jpeg_size, 0);
    if (code == FIC_OK)
        code = fic_scan_begin(scan, header->scan_start);
    if (code != FIC_OK)
        return code;

    memset(out, 0, (size_t)size);
    int64_t raw = scan->segment_raw, plain = 0;
    int32_t fits = 1;
    for (int32_t row = 0; row < header->mcu_rows; row++) {
        int64_t row_position = 0;
        for (int32_t column = 0; column < header->mcus_per_row; column += k) {
            code = follow_restart(scan, &raw, &plain);
            if (code != FIC_OK)
                return code;
            int64_t position = fic_scan_position(scan, &raw, &plain);
            if (column == 0) {
                row_position = position;
                fits &= fic_index_store_row(out, columns, header->mcu_rows, row, position);
            }
            fits &= fic_index_store_entry(out, columns, row, column / k, position - row_position, scan->dc);
            int32_t remaining = header->mcus_per_row - column, run = remaining < k ? remaining : k;
            while (run > 0) {
                int32_t part = run < scan->until_restart ? run : (int32_t)scan->until_restart;
                code = fic_scan_skip(scan, part, 0);
                run -= part;
                if (code == FIC_OK && run > 0)
                    code = follow_restart(scan, &raw, &plain);
                if (code != FIC_OK)
                    return code;
            }
        }
    }
    return fits && fic_scan_ends(scan) ? size : 0;
}

int64_t fic_run_limit(const fic_jpeg_header *header, const uint8_t *jpeg, int64_t size, const uint8_t *index,
                      int32_t every_k, int32_t row, int64_t end)
{
    int64_t columns = fic_index_columns(header->mcus_per_row, every_k);
    if (end == columns && ++row == header->mcu_rows)
        return size;
    int64_t position = fic_index_entry(index, columns, header->mcu_rows, row, end == columns ? 0 : end).position;
    int64_t limit = (position + 7) / 8;
    /* The last byte belongs to both runs; a 0xff is one with the stuffing after it. */
    return position % 8 && limit < size && jpeg[limit - 1] == 0xff ? limit + 1 : limit;
}
