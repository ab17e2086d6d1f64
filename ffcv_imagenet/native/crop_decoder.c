/* Decodes a crop of a JPEG, natively or through libturbojpeg. See fic.h. */
#include "decoder.h"

/* Lay out the blocks that the crop's filters reach, and where their samples go. */
static int32_t place_planes(fic_decoder *decoder, const fic_crop *crop, fic_planes *planes)
{
    const fic_jpeg_header *header = &decoder->header;
    fic_plane *plane = decoder->scan.plane;
    size_t offset[3], size = 0;
    fic_layout_planes(header, crop, plane);
    planes->width = header->width;
    planes->height = header->height;
    planes->num_components = header->num_components;
    planes->colour = header->colour;
    planes->subsampling = (fic_factors){header->subsampling_x, header->subsampling_y};
    for (int32_t c = 0; c < header->num_components; c++) {
        fic_source *source = &planes->source[c];
        planes->origin[c][0] = 8 * plane[c].block_x;
        planes->origin[c][1] = 8 * plane[c].block_y;
        source->stride = plane[c].stride;
        source->width = 8 * plane[c].blocks_w;
        source->height = 8 * plane[c].blocks_h;
        offset[c] = size;
        size += (size_t)plane[c].stride * (size_t)source->height;
    }
    uint8_t *memory = fic_buffer_reserve(&decoder->planes, size);
    if (!memory)
        return FIC_ERROR_MEMORY;
    for (int32_t c = 0; c < header->num_components; c++)
        planes->source[c].samples = plane[c].samples = memory + offset[c];
    return FIC_OK;
}

static int32_t decode_in_order(fic_decoder *decoder, fic_mcu_range range)
{
    fic_scan *scan = &decoder->scan;
    int32_t mcus_per_row = decoder->header.mcus_per_row;
    int64_t before = (int64_t)range.top * mcus_per_row + range.left;
    int32_t code = fic_scan_begin(scan, decoder->header.scan_start);
    if (code == FIC_OK)
        code = fic_scan_skip(scan, before, 1);
    for (int32_t row = range.top; code == FIC_OK; row++) {
        code = fic_scan_decode(scan, row, range.left, range.right);
        if (code != FIC_OK || row + 1 == range.bottom)
            break;
        code = fic_scan_skip(scan, mcus_per_row - (range.right - range.left), 1);
    }
    return code == FIC_OK && !fic_scan_ends(scan) ? FIC_ERROR_TRUNCATED : code;
}

/* An image's bytes and its index. */
typedef struct {
    const uint8_t *jpeg, *index;
    int64_t size, index_size;
    int32_t every_k;
} indexed_jpeg;

/* Bring a scan to the first MCU of `row` that is needed. */
static int32_t begin_row(fic_scan *scan, const fic_jpeg_header *header, const indexed_jpeg *image, fic_mcu_range range,
                         int32_t row)
{
    int32_t k = image->every_k;
    int64_t columns = fic_index_columns(header->mcus_per_row, k), from = range.left / k;
    fic_entry_point entry = fic_index_entry(image->index, columns, header->mcu_rows, row, from);
    int64_t limit = fic_run_limit(header, image->jpeg, image->size, image->index, k, row, (range.right + k - 1) / k);
    if (entry.position < header->scan_start * 8 || limit > image->size || entry.position >= limit * 8)
        return FIC_ERROR_INDEX;
    int32_t code = fic_scan_seek(scan, &entry, (int64_t)row * header->mcus_per_row + from * k, limit);
    return code == FIC_OK ? fic_scan_skip(scan, range.left - from * k, 0) : code;
}

static int32_t decode_indexed(fic_decoder *decoder, fic_mcu_range range, const indexed_jpeg *image)
{
    const fic_jpeg_header *header = &decoder->header;
    fic_scan *scan = &decoder->scan, *below = &decoder->below;
    if (image->index_size != fic_index_size(header->mcus_per_row, header->mcu_rows, image->every_k))
        return FIC_ERROR_INDEX;
    fic_scan_copy(below, scan);
    int32_t row = range.top;
    while (row < range.bottom) {
        int32_t code = begin_row(scan, header, image, range, row), code_below = FIC_OK;
        int32_t two = row + 1 < range.bottom && header->restart_interval == 0;
        if (two)
            code_below = begin_row(below, header, image, range, row + 1);
        if (code == FIC_OK)
            code = two && code_below == FIC_OK ? fic_scan_decode_two(scan, below, row, range.left, range.right)
                                               : fic_scan_decode(scan, row, range.left, range.right);
        if (code == FIC_OK)
            code = code_below;
        if (code != FIC_OK)
            return code;
        row += 1 + two;
    }
    return FIC_OK;
}

int32_t fic_decode_crop(fic_decoder *decoder, const uint8_t *jpeg, int64_t jpeg_size, int32_t width, int32_t height,
                        int32_t crop_x, int32_t crop_y, int32_t crop_w, int32_t crop_h, int32_t out_w, int32_t out_h,
                        int32_t flip, int32_t resize, const uint8_t *index, int64_t index_size, int32_t every_k,
                        uint8_t *out)
{
    fic_crop crop = {crop_x, crop_y, crop_w, crop_h, out_w, out_h, flip != 0, resize};
    if (!decoder || !jpeg || jpeg_size < 0 || !out || !fic_valid_crop(width, height, &crop) ||
        (index && (index_size < 0 || every_k < 1 || every_k > 255)))
        return FIC_ERROR_ARGUMENT;
    fic_jpeg_header *header = &decoder->header;
    int32_t code = fic_parse_header(jpeg, jpeg_size, header);
    if (code != FIC_OK)
        return code;
    if (header->width != width || header->height != height)
        return FIC_ERROR_SIZE_MISMATCH;
    if (!header->native)
        return fic_fallback_crop(decoder, jpeg, jpeg_size, &crop, out);

    fic_planes planes;
    code = place_planes(decoder, &crop, &planes);
    if (code == FIC_OK)
        code = fic_prepare_scan(decoder, jpeg, jpeg_size, 0);
    if (code == FIC_OK) {
        fic_mcu_range range = fic_needed_mcus(header, decoder->scan.plane);
        if (index) {
            indexed_jpeg image = {jpeg, index, jpeg_size, index_size, every_k};
            code = decode_indexed(decoder, range, &image);
        } else {
            code = decode_in_order(decoder, range);
        }
    }
    if (code == FIC_OK)
        return fic_resample_crop(decoder, &crop, &planes, out);
    /* libjpeg judges what is odd. Only whole files have an index: with one, this is damage. */
    if (index || code == FIC_ERROR_MEMORY)
        return code;
    return fic_fallback_crop(decoder, jpeg, jpeg_size, &crop, out) == FIC_OK ? FIC_OK : code;
}
