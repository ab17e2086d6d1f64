/*
 * Decode a crop of a JPEG straight to the training resolution.
 *
 * Only what the crop needs is decoded: entropy-coded data outside it is skipped over (or, with an entry-point index,
 * never touched), the inverse DCT runs on the blocks the resampling filter reaches, and each colour component is
 * resampled at its own resolution before the colour conversion. The result is close to Pillow's or OpenCV's full
 * decode, crop, resize; the filters are those of filter.h.
 *
 * Every function is safe on hostile bytes: JPEG and index are checked, nothing is read or written out of bounds.
 * A fic_decoder holds scratch memory and cached tables; use one per thread. Functions return 0 or a positive count on
 * success and a negative fic_error otherwise. Sizes are in pixels, positions from the image's top left corner.
 */
#ifndef FIC_H
#define FIC_H

#include <stdint.h>

#if defined(__GNUC__)
#define FIC_API __attribute__((visibility("default")))
#else
#define FIC_API
#endif

typedef struct fic_decoder fic_decoder;

enum fic_error {
    FIC_OK = 0,
    FIC_ERROR_ARGUMENT = -1, /* a null pointer, an outlying crop, an output size outside 1..16384, no such filter */
    FIC_ERROR_MEMORY = -2,   /* allocation failed */
    FIC_ERROR_NOT_JPEG = -3, /* no SOI marker at the start */
    FIC_ERROR_HEADER = -4,   /* malformed or missing marker segment */
    FIC_ERROR_SIZE_MISMATCH = -5, /* width or height differ from the frame header */
    FIC_ERROR_HUFFMAN_TABLE = -6, /* missing Huffman table, or one with too many codes or one of ones alone */
    FIC_ERROR_TRUNCATED = -7,     /* the entropy-coded data end before the last block needed */
    FIC_ERROR_CODE = -8,          /* a bit sequence that is no code, or a category that 8-bit samples cannot have */
    FIC_ERROR_COEFFICIENT = -9,   /* run past the 63rd AC coefficient, or a DC value out of range */
    FIC_ERROR_RESTART = -10,      /* restart marker missing or out of order */
    FIC_ERROR_INDEX = -11,        /* the entry-point index does not fit the JPEG */
    FIC_ERROR_UNSUPPORTED = -12,  /* neither this decoder nor libturbojpeg can read the file */
    FIC_ERROR_FALLBACK = -13, /* libturbojpeg reported an error or a warning (its corrupt-data reports are warnings) */
    FIC_ERROR_CAPACITY = -14, /* the output buffer is too small */
    FIC_LAST_ERROR = FIC_ERROR_CAPACITY
};

/* Text for a return code; a static string, never NULL. */
FIC_API const char *fic_error_message(int32_t code);

/* A context for one thread, NULL when out of memory. */
FIC_API fic_decoder *fic_decoder_new(void);
FIC_API void fic_decoder_free(fic_decoder *decoder);

/* Choose the code path: 0 scalar, anything else the widest that the processor has. Both give the same bits.
 * Returns 1 when SIMD is now in use. */
FIC_API int32_t fic_set_simd(fic_decoder *decoder, int32_t enable);

/*
 * Decode the crop [crop_x, crop_x + crop_w) x [crop_y, crop_y + crop_h), resize it to out_w x out_h by the filter
 * `resize` (enum fic_resize), mirror it horizontally when flip is not 0, and write out_h * out_w * 3 bytes of RGB, rows
 * contiguous, to `out`. The crop is passed as plain numbers because the caller is code compiled by numba.
 *
 * width, height: the image's size as stored with the JPEG; it must equal the frame header's.
 * index, index_size, every_k: what fic_build_index wrote for this JPEG and the k it was built with, or NULL, 0, 0.
 * The pixels do not depend on the index. It is ignored for files that fic_build_index cannot index.
 *
 * Baseline and extended sequential 8-bit Huffman JPEGs with one interleaved scan (grey, 4:4:4, 4:2:2, 4:2:0, 4:4:0)
 * are decoded here, other files by libturbojpeg in full. Without an index, libturbojpeg also decodes a file in which
 * this decoder finds a fault or whose scan does not end in EOI, so that the verdict does not depend on the crop. On an
 * error the contents of `out` are undefined.
 */
FIC_API int32_t fic_decode_crop(fic_decoder *decoder, const uint8_t *jpeg, int64_t jpeg_size, int32_t width,
                                int32_t height, int32_t crop_x, int32_t crop_y, int32_t crop_w, int32_t crop_h,
                                int32_t out_w, int32_t out_h, int32_t flip, int32_t resize, const uint8_t *index,
                                int64_t index_size, int32_t every_k, uint8_t *out);

/* The same crop, filter and mirroring from an uncompressed image, height * width * 3 bytes of RGB. */
FIC_API int32_t fic_resize_crop(fic_decoder *decoder, const uint8_t *rgb, int32_t width, int32_t height, int32_t crop_x,
                                int32_t crop_y, int32_t crop_w, int32_t crop_h, int32_t out_w, int32_t out_h,
                                int32_t flip, int32_t resize, uint8_t *out);

/*
 * Write the entry-point index (docs/mcu_index.md) with an entry at every k-th MCU of each MCU row, k in 1..255.
 * Returns the number of bytes written, 0 when the file cannot be indexed (not decoded natively, values beyond the
 * entries' fields, or something other than EOI after the scan), or an error: the whole scan is read, so that damage is
 * found here.
 * With out == NULL nothing is decoded and the size in bytes is returned.
 */
FIC_API int64_t fic_build_index(fic_decoder *decoder, const uint8_t *jpeg, int64_t jpeg_size, int32_t k, uint8_t *out,
                                int64_t capacity);

/* What a JPEG's header says. */
typedef struct {
    int32_t width, height;
    int32_t components;
    int32_t subsampling_x, subsampling_y; /* luma samples per chroma sample: 1 or 2; 0 when it is neither */
    int32_t progressive;
    int32_t indexable;        /* fic_build_index can index it */
    int32_t restart_interval; /* in MCUs, 0: none */
    int32_t plain;            /* fic_read_plain_image can read it, and Pillow does not refuse its header */
} fic_jpeg_info;

/* Read the header only. */
FIC_API int32_t fic_probe(const uint8_t *jpeg, int64_t jpeg_size, fic_jpeg_info *info);

/*
 * Decode a whole JPEG to width * height * 3 bytes of RGB (not CMYK) with the accurate DCT of libturbojpeg. width and
 * height must equal the frame header's. Damaged data are an error, even where a decoder could continue.
 */
FIC_API int32_t fic_read_image(const uint8_t *jpeg, int64_t jpeg_size, int32_t width, int32_t height, uint8_t *out);

/*
 * The same pixels from this decoder, in half the time, of files that fic_probe calls plain. An error is no verdict on
 * the file: there are files that libturbojpeg reads nevertheless. After one the contents of `out` are undefined.
 */
FIC_API int32_t fic_read_plain_image(fic_decoder *decoder, const uint8_t *jpeg, int64_t jpeg_size, int32_t width,
                                     int32_t height, uint8_t *out);

/*
 * Write width * height RGB pixels, at most 65500 a side, as a baseline 4:2:0 JPEG of quality 1..100: the bytes that
 * libjpeg-turbo with its accurate DCT writes, and so OpenCV's. Returns their number. With `index` not NULL it receives
 * what fic_build_index would write for k = every_k, and *index_size, its capacity before, is the number of bytes then.
 * fic_written_capacity and fic_written_index_capacity give the memory that suffices; a JPEG that needed more than the
 * former, which no picture does, would be FIC_ERROR_CAPACITY.
 */
FIC_API int64_t fic_write_jpeg(fic_decoder *decoder, const uint8_t *rgb, int32_t width, int32_t height, int32_t quality,
                               uint8_t *out, int64_t capacity, int32_t every_k, uint8_t *index, int64_t *index_size);
FIC_API int64_t fic_written_capacity(int32_t width, int32_t height);
FIC_API int64_t fic_written_index_capacity(int32_t width, int32_t height, int32_t every_k);

/*
 * Shrink an image of at most 65535 pixels a side along both axes, out_w <= width, out_h <= height, to out_h * out_w * 3
 * bytes: the bits of OpenCV's INTER_AREA on x86. FIC_ERROR_UNSUPPORTED where width and height are multiples of out_w
 * and out_h, for which OpenCV has a method of its own.
 */
FIC_API int32_t fic_shrink_area(fic_decoder *decoder, const uint8_t *rgb, int32_t width, int32_t height, int32_t out_w,
                                int32_t out_h, uint8_t *out);

/*
 * Ask the system to read ranges of bytes of a mapped file, without waiting for them: `count` pairs of the first byte
 * (relative to `content`) and a size. They lie inside the mapping. Only advice: what fails is read when it is used.
 */
FIC_API void fic_will_need(const uint8_t *content, const uint64_t *starts, const uint64_t *sizes, int64_t count);

/* Ask the system to begin to bring a part of a file that was written to the disk. Only advice, as above. */
FIC_API void fic_begin_to_store(int32_t descriptor, int64_t start, int64_t size);

/* A sample to be decoded on a GPU. `jpeg` and `index` are addresses; without an index both its fields are 0. */
typedef struct {
    uint64_t jpeg; /* 0 for a sample that is not a JPEG */
    int64_t size;
    uint64_t index;
    int64_t index_size;
    int32_t width, height;    /* of the image, as stored with it */
    int32_t x, y, w, h, flip; /* the crop */
    int32_t padding;          /* unused */
} fic_gather_sample;

typedef struct {
    int64_t used;       /* bytes of the staging buffer; if it was too small, the size that suffices */
    int64_t workspace;  /* bytes of memory that the kernels need */
    int64_t pixels;     /* offset of the pixels of the first sample that the CPU decodes */
    int32_t num_on_cpu; /* samples that the CPU decodes */
    int32_t max_items;  /* of one image */
} fic_gather_result;

/*
 * Gather what the kernels of gpu_kernels.cu need to decode crops: at staging + begin an array of fic_gpu_image, after
 * it the images' items and bytes, then room for the pixels of the samples that the CPU decodes, in their order: out_h *
 * out_w * 3 bytes each. Those have num_components 0. begin is a multiple of 16. on_cpu: [count], not 0 for samples that
 * the CPU decodes in any case; set to 1 for all that it has to decode.
 *
 * Returns FIC_ERROR_CAPACITY when the buffer is too small. Reads nothing outside the samples, whatever they hold.
 */
FIC_API int32_t fic_gpu_gather(const fic_gather_sample *samples, uint8_t *on_cpu, int32_t count, int32_t every_k,
                               int32_t out_w, int32_t out_h, int32_t resize, uint8_t *staging, int64_t begin,
                               int64_t capacity, fic_gather_result *result);

#endif
