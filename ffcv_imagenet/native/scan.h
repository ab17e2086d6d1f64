/* Walking over the MCUs of a scan: segments between restart markers, runs of MCUs that are decoded or skipped. */
#ifndef FIC_SCAN_H
#define FIC_SCAN_H

#include "buffer.h"
#include "entropy.h"
#include "jpeg_header.h"
#include "mcu_index.h"

#define FIC_MAX_BLOCKS 6

/* The part of a component that is decoded: blocks [block_x, block_x + blocks_w) x [block_y, block_y + blocks_h). */
typedef struct {
    int32_t block_x, block_y, blocks_w, blocks_h;
    int32_t stride;
    uint8_t *samples;           /* 8 * blocks_h rows */
    const uint16_t *quantisers; /* in the order of fic_coefficient_order, or as `exact` says */
} fic_plane;

typedef struct {
    int32_t component;
    int32_t x, y; /* position in the MCU, in blocks */
} fic_mcu_block;

typedef struct {
    const uint8_t *jpeg;
    int64_t limit;        /* entropy-coded data end here at the latest */
    int64_t segment_raw;  /* offset of the segment in the JPEG */
    int64_t segment_next; /* offset of the marker (or the limit) that ended it */
    int64_t segment_size; /* bytes without stuffing */
    const uint8_t *segment;
    fic_bits bits;
    int32_t dc[3];
    int32_t restart_interval;
    int64_t until_restart; /* MCUs left in the segment */
    int32_t restart_number;
    int32_t simd;
    int32_t exact; /* samples are those of libjpeg's accurate transform; quantisers in the order of fic_islow_order */
    fic_factors blocks_per_mcu[3];
    int32_t num_blocks;
    fic_mcu_block block[FIC_MAX_BLOCKS];
    const fic_huffman_table *dc_table[3], *ac_table[3];
    fic_plane plane[3];
    fic_buffer buffer;
    _Alignas(32) int16_t cells[2][FIC_BLOCK_CELLS]; /* zero before and after a run */
} fic_scan;

/* Set what the scan is made of; fic_scan_begin or fic_scan_seek comes next. The caller sets the tables, simd
 * and exact. */
void fic_scan_describe(fic_scan *scan, const uint8_t *jpeg, int64_t size, const fic_jpeg_header *header);

/* Make another scan of the same JPEG, with the same tables and planes. */
void fic_scan_copy(fic_scan *scan, const fic_scan *from);

/* Start at the first MCU, byte `start` of the JPEG. */
int32_t fic_scan_begin(fic_scan *scan, int64_t start);

/* Start at MCU number `mcu` from an index entry; `limit`: a byte offset that the next run does not pass. */
int32_t fic_scan_seek(fic_scan *scan, const fic_entry_point *entry, int64_t mcu, int64_t limit);

/* Step over `count` MCUs. With `unread`, whole segments are not read at all, so that errors in them go unnoticed. */
int32_t fic_scan_skip(fic_scan *scan, int64_t count, int32_t unread);

/* Decode MCUs [column, end) of MCU row `row`: those of their blocks that lie in the planes. FIC_ERROR_UNSUPPORTED:
 * fic_islow_inverse refuses one of them. */
int32_t fic_scan_decode(fic_scan *scan, int32_t row, int32_t column, int32_t end);

/* fic_scan_decode for row `row` of a scan and for the row below, where the second scan is; no restart marker lies in
 * either. Of two errors the upper row's is returned. */
int32_t fic_scan_decode_two(fic_scan *scan, fic_scan *below, int32_t row, int32_t column, int32_t end);

/* FIC_ERROR_TRUNCATED if more bits were read than the segment has. */
int32_t fic_scan_check(const fic_scan *scan);

/* Whether EOI ends the scan, with nothing but segments and restart markers between the current segment and it. */
int32_t fic_scan_ends(const fic_scan *scan);

/* Bit position of the next MCU in the JPEG. *raw, *plain: corresponding offsets in the JPEG and in the segment at or
 * before it, advanced by the call; start each segment with segment_raw and 0. */
int64_t fic_scan_position(const fic_scan *scan, int64_t *raw, int64_t *plain);

/* Continue after the next restart marker if the segment is at its end. Returns 1 if so, 0 if not, or an error. */
int32_t fic_scan_restart(fic_scan *scan);

#endif
