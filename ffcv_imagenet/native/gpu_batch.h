/* What the host gathers for a batch that a GPU decodes: read by gpu_kernels.cu, written by gpu_gather.c. */
#ifndef FIC_GPU_BATCH_H
#define FIC_GPU_BATCH_H

#include "colour.h"
#include "filter.h"

/* MCUs of one row that one thread decodes: an entry point up to the next, or to a restart marker in between. */
typedef struct {
    uint32_t begin;       /* first bit, from the image's first byte */
    uint32_t end;         /* the bit after the last one: exactly if `exact` is set, else at most */
    int16_t dc[3];        /* predictors */
    uint16_t row, column; /* of the first MCU */
    uint8_t count;
    uint8_t exact; /* the next item begins where this one ends, with its predictors */
} fic_gpu_item;

/* As fic_plane. */
typedef struct {
    int64_t samples; /* offset in the workspace */
    int32_t block_x, block_y, blocks_w, blocks_h;
    int32_t stride;
    int32_t padding;
} fic_gpu_plane;

/* The filters of one axis of the luma or the chroma planes. Offsets in the workspace. */
typedef struct {
    fic_filter_key key;
    int32_t taps;
    int64_t first;  /* [out_size] int32: plane coordinate of the first weight */
    int64_t count;  /* [out_size] int32 */
    int64_t weight; /* [taps][out_size] int16 */
} fic_gpu_filter;

enum { FIC_GPU_ACROSS, FIC_GPU_DOWN };

#define FIC_GPU_SPEC_SIZE 272 /* of a Huffman table: 16 counts and up to 256 values */

typedef struct {
    int64_t bytes;   /* offset in the staging buffer: entropy-coded data without stuffing, or the finished pixels */
    int64_t items;   /* likewise */
    int64_t rows[3]; /* offset in the workspace: [out_h][stride] int16, the planes resized vertically */
    int32_t num_items;
    int32_t num_components; /* 0: `bytes` are the pixels, [out_h, out_w, 3] uint8 */
    int32_t colour;
    int32_t luma_blocks_x, luma_blocks_y; /* of an MCU, which has one block of each chroma component */
    int32_t padding;
    fic_gpu_plane plane[3];
    fic_gpu_filter filter[2][2];              /* [across, down][luma, chroma] */
    uint16_t quantisers[3][64];               /* in the order of fic_coefficient_order */
    uint8_t huffman[2][2][FIC_GPU_SPEC_SIZE]; /* [luma, chroma][DC, AC] */
} fic_gpu_image;

#endif
