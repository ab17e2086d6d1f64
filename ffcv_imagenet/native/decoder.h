/* The context and what the parts of the library share. */
#ifndef FIC_DECODER_H
#define FIC_DECODER_H

#include "fic.h"
#include "huffman_build.h"
#include "resample.h"
#include "scan.h"

struct fic_decoder {
    fic_scan scan;
    _Alignas(32) uint16_t quantisers[4][64]; /* in the order of fic_coefficient_order */
    fic_huffman_table huffman[2][4];         /* [class: DC, AC][table number]; kept from one image to the next */
    fic_jpeg_header header;
    fic_filter horizontal[2], vertical[2]; /* luma, chroma */
    fic_resampling_scratch scratch;
    fic_buffer planes, fallback;
    void *compressor; /* libturbojpeg's handle for writing, made at its first use */
    int32_t simd;
};

typedef struct {
    int32_t x, y, w, h;
    int32_t out_w, out_h;
    int32_t flip;
    int32_t resize; /* enum fic_resize */
} fic_crop;

typedef struct {
    int32_t left, right, top, bottom; /* in MCUs: [left, right) x [top, bottom) */
} fic_mcu_range;

/* Whether the crop lies in an image of this size, the output size is allowed and the filter is there. */
int32_t fic_valid_crop(int32_t width, int32_t height, const fic_crop *crop);

/* The blocks that the crop's filters reach, for each component of a native file; not where their samples go. */
void fic_layout_planes(const fic_jpeg_header *header, const fic_crop *crop, fic_plane plane[3]);

/* The MCUs that hold these blocks. */
fic_mcu_range fic_needed_mcus(const fic_jpeg_header *header, const fic_plane plane[3]);

/* 64 values as DQT has them, 8 or 16 bits wide, to the order of fic_coefficient_order. */
void fic_order_quantisers(const uint8_t *values, int32_t wide, uint16_t ordered[64]);

/* The end, a byte offset, of a run of MCUs up to entry column `behind` of `row`, or up to the row's end. Any number when
 * the index is damaged, except that no byte outside the JPEG is read. */
int64_t fic_run_limit(const fic_jpeg_header *header, const uint8_t *jpeg, int64_t size, const uint8_t *index,
                      int32_t every_k, int32_t row, int64_t behind);

/* Build the Huffman tables and quantisers of a native file and describe its scan. */
int32_t fic_prepare_scan(fic_decoder *decoder, const uint8_t *jpeg, int64_t size);

/* Resample planes to the output. plane_origin[c] = x, y of plane c's first sample in its component; the chroma planes
 * share theirs. h, v: pixels per chroma sample. */
int32_t fic_resample_crop(fic_decoder *decoder, const fic_crop *crop, int32_t width, int32_t height,
                          int32_t num_components, enum fic_colour colour, int32_t h, int32_t v,
                          const fic_source source[3], const int32_t plane_origin[3][2], uint8_t *out);

/* The crop through libturbojpeg. decoder->header holds the parsed header. */
int32_t fic_fallback_crop(fic_decoder *decoder, const uint8_t *jpeg, int64_t size, const fic_crop *crop, uint8_t *out);

typedef struct {
    void *handle;
    int width, height, subsampling, colourspace; /* TJSAMP and TJCS */
} fic_turbojpeg_image;

/* A handle of libturbojpeg that has read a JPEG's header; the caller ends it with tjDestroy, unless this fails. Each
 * image has its own (a microsecond): a handle gives the tables of one image to the next that has none, and after an
 * error in a header it goes on with that header. */
int32_t fic_turbojpeg_open(const uint8_t *jpeg, int64_t size, fic_turbojpeg_image *image);

/* What fic_write_jpeg keeps. */
void fic_whole_image_free(fic_decoder *decoder);

#endif
