/* The context, and what the parts of the library share: decoder.c, crop_geometry.c, resize_crop.c, entry_index.c,
 * turbojpeg.c and fallback_turbojpeg.c define it. */
#ifndef FIC_DECODER_H
#define FIC_DECODER_H

#include "fic.h"
#include "huffman_build.h"
#include "jpeg_encoder.h"
#include "resample.h"
#include "scan.h"

struct fic_decoder {
    fic_scan scan, below;                    /* with an index two rows of MCUs are decoded at a time */
    _Alignas(32) uint16_t quantisers[4][64]; /* as the scan has them */
    fic_huffman_table huffman[2][4];         /* [class: DC, AC][table number]; kept from one image to the next */
    fic_jpeg_header header;
    fic_filter horizontal[2], vertical[2]; /* luma, chroma */
    fic_resampling_scratch scratch;
    fic_buffer planes, fallback;
    fic_jpeg_encoder encoder;
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

/* Whether the crop lies in an image of this size, the output size is allowed and the filter exists. */
int32_t fic_valid_crop(int32_t width, int32_t height, const fic_crop *crop);

/* The blocks that the crop's filters reach, for each component of a native file; not where their samples go. */
void fic_layout_planes(const fic_jpeg_header *header, const fic_crop *crop, fic_plane plane[3]);

/* The MCUs that hold these blocks. */
fic_mcu_range fic_needed_mcus(const fic_jpeg_header *header, const fic_plane plane[3]);

/* 64 values as DQT has them, 8 or 16 bits wide, to an order like that of fic_coefficient_order. */
void fic_order_quantisers(const uint8_t *values, int32_t wide, const uint8_t order[64], uint16_t ordered[64]);

/* Byte offset of the end of a run of MCUs that ends before entry column `end` of `row`, or at the row's end. Any number
 * when the index is damaged, but no byte outside the JPEG is read. */
int64_t fic_run_limit(const fic_jpeg_header *header, const uint8_t *jpeg, int64_t size, const uint8_t *index,
                      int32_t every_k, int32_t row, int64_t end);

/* Build the Huffman tables and quantisers of a native file and describe its scan; `exact` as in fic_scan, whose blocks
 * are then not skipped. */
int32_t fic_prepare_scan(fic_decoder *decoder, const uint8_t *jpeg, int64_t size, int32_t exact);

/* The crop's filters along both axes for a component: of an image of this size, with samples of `pixels` each, in a
 * plane whose first sample is `origin` (x, y) of the component. */
void fic_filter_keys(const fic_crop *crop, int32_t width, int32_t height, fic_factors pixels, const int32_t origin[2],
                     fic_filter_key *across, fic_filter_key *down);

/* The planes of an image that a crop is resampled from. */
typedef struct {
    int32_t width, height; /* of the image in pixels */
    int32_t num_components;
    enum fic_colour colour;
    fic_factors subsampling; /* pixels per chroma sample */
    fic_source source[3];
    int32_t origin[3][2]; /* x, y of each plane's first sample in its component; the chroma planes' are equal */
} fic_planes;

/* Resample planes to the output. */
int32_t fic_resample_crop(fic_decoder *decoder, const fic_crop *crop, const fic_planes *planes, uint8_t *out);

/* fic_resize_crop with a crop that fic_valid_crop accepts. */
int32_t fic_resize_pixels(fic_decoder *decoder, const uint8_t *rgb, int32_t width, int32_t height, const fic_crop *crop,
                          uint8_t *out);

/* The crop through libturbojpeg. decoder->header holds the parsed header. */
int32_t fic_fallback_crop(fic_decoder *decoder, const uint8_t *jpeg, int64_t size, const fic_crop *crop, uint8_t *out);

typedef struct {
    void *handle;
    int width, height, subsampling, colourspace; /* TJSAMP and TJCS */
} fic_turbojpeg_image;

/* A handle of libturbojpeg that has read a JPEG's header; the caller ends it with tjDestroy, unless this fails. Each
 * image has its own (a microsecond): a handle passes the tables of one image on to the next that has none, and after an
 * error in a header it continues with that header. */
int32_t fic_turbojpeg_open(const uint8_t *jpeg, int64_t size, fic_turbojpeg_image *image);

/* Write to an index's `row`: its base position, and the entry of column `column` * k. They return 0 where a value does
 * not fit its field. */
int32_t fic_index_store_row(uint8_t *index, int64_t columns, int32_t mcu_rows, int32_t row, int64_t position);
int32_t fic_index_store_entry(uint8_t *index, int64_t columns, int32_t row, int64_t column, int64_t offset,
                              const int32_t dc[3]);

#endif
