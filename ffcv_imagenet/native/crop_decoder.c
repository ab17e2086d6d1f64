#include <string.h>

#include "decoder.h"

const char *fic_error_message(int32_t code)
{
    static const char *const messages[] = {
        "success",
        "invalid argument: null pointer, crop outside the image, output size outside 1..16384, or unknown filter",
        "out of memory",
        "not a JPEG file",
        "malformed JPEG header",
        "the stored width and height differ from the JPEG's",
        "invalid or missing Huffman table",
        "truncated JPEG data",
        "corrupt JPEG data: invalid Huffman code",
        "corrupt JPEG data: coefficient out of range",
        "corrupt JPEG data: restart marker missing or out of order",
        "the entry-point index does not fit the JPEG",
        "unsupported kind of JPEG",
        "libturbojpeg cannot decode the JPEG",
        "the output buffer is too small",
    };
    int32_t count = (int32_t)(sizeof messages / sizeof *messages);
    return code > 0 ? messages[0] : -code < count && code > -count ? messages[-code] : "unknown error";
}

static int32_t simd_available(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
#else
    return 0;
#endif
}

fic_decoder *fic_decoder_new(void)
{
    fic_decoder *decoder = aligned_alloc(64, (sizeof *decoder + 63) / 64 * 64);
    if (!decoder)
        return NULL;
    memset(decoder, 0, sizeof *decoder);
    decoder->simd = simd_available();
    return decoder;
}

void fic_decoder_free(fic_decoder *decoder)
{
    if (!decoder)
        return;
    fic_whole_image_free(decoder);
    fic_filter *filters[4] = {&decoder->horizontal[0], &decoder->horizontal[1], &decoder->vertical[0],
                              &decoder->vertical[1]};
    for (int32_t i = 0; i < 4; i++)
        fic_buffer_free(&filters[i]->table);
    fic_buffer_free(&decoder->scratch.rows);
    fic_buffer_free(&decoder->scratch.columns);
    fic_buffer_free(&decoder->planes);
    fic_buffer_free(&decoder->fallback);
    fic_buffer_free(&decoder->scan.buffer);
    free(decoder);
}

int32_t fic_set_simd(fic_decoder *decoder, int32_t enable)
{
    decoder->simd = enable && simd_available();
    return decoder->simd;
}

void fic_order_quantisers(const uint8_t *values, int32_t wide, uint16_t ordered[64])
{
    for (int32_t i = 0; i < 64; i++)
        ordered[fic_coefficient_order[i]] = (uint16_t)(wide ? values[2 * i] << 8 | values[2 * i + 1] : values[i]);
}

int32_t fic_prepare_scan(fic_decoder *decoder, const uint8_t *jpeg, int64_t size)
{
    const fic_jpeg_header *header = &decoder->header;
    fic_scan *scan = &decoder->scan;
    for (int32_t c = 0; c < header->num_components; c++) {
        const fic_component *component = &header->component[c];
        const uint8_t *quantiser = header->quantiser[component->quantiser];
        const uint8_t *dc = header->huffman[0][component->dc], *ac = header->huffman[1][component->ac];
        if (!quantiser)
            return FIC_ERROR_HEADER;
        if (!dc || !ac)
            return FIC_ERROR_HUFFMAN_TABLE;
        fic_huffman_table *dc_table = &decoder->huffman[0][component->dc];
        fic_huffman_table *ac_table = &decoder->huffman[1][component->ac];
        int32_t code = fic_huffman_build(dc_table, dc, 0);
        if (code == FIC_OK)
            code = fic_huffman_build(ac_table, ac, 1);
        if (code != FIC_OK)
            return code;
        uint16_t *values = decoder->quantisers[component->quantiser];
        fic_order_quantisers(quantiser, header->quantiser_is_16bit[component->quantiser], values);
        scan->dc_table[c] = dc_table;
        scan->ac_table[c] = ac_table;
        scan->plane[c].quantisers = values;
    }
    scan->simd = decoder->simd;
    fic_scan_describe(scan, jpeg, size, header);
    return FIC_OK;
}

int32_t fic_resample_crop(fic_decoder *decoder, const fic_crop *crop, int32_t width, int32_t height,
                          int32_t num_components, enum fic_colour colour, int32_t h, int32_t v,
                          const fic_source source[3], const int32_t plane_origin[3][2], uint8_t *out)
{
    fic_resampling task;
    task.num_components = num_components;
    task.colour = colour;
    for (int32_t c = 0; c < num_components; c++) {
        int32_t chroma = c > 0, sub_h = chroma ? h : 1, sub_v = chroma ? v : 1;
        fic_filter *horizontal = &decoder->horizontal[chroma], *vertical = &decoder->vertical[chroma];
        /* Memory compared as a whole is the key: no padding, 8 fields of 32 bits. */
        fic_filter_key across = {crop->x, crop->w, crop->out_w, sub_h, (width + sub_h - 1) / sub_h,
                                 plane_origin[c][0], crop->flip, crop->resize};
        fic_filter_key down = {crop->y, crop->h, crop->out_h, sub_v, (height + sub_v - 1) / sub_v,
                               plane_origin[c][1], 0, crop->resize};
        int32_t code = fic_filter_build(horizontal, &across, decoder->simd);
        if (code == FIC_OK)
            code = fic_filter_build(vertical, &down, decoder->simd);
        if (code != FIC_OK)
            return code;
        task.source[c] = source[c];
        task.horizontal[c] = horizontal;
        task.vertical[c] = vertical;
    }
    return fic_resample(&task, &decoder->scratch, decoder->simd, out);
}

void fic_layout_planes(const fic_jpeg_header *header, const fic_crop *crop, fic_plane plane[3])
{
    for (int32_t c = 0; c < header->num_components; c++) {
        int32_t h = c > 0 ? header->h : 1, v = c > 0 ? header->v : 1;
        int32_t width = (header->width + h - 1) / h, height = (header->height + v - 1) / v, first, last;
        fic_filter_reach(crop->x, crop->w, h, width, &first, &last);
        plane[c].block_x = first / 8;
        plane[c].blocks_w = last / 8 + 1 - plane[c].block_x;
        fic_filter_reach(crop->y, crop->h, v, height, &first, &last);
        plane[c].block_y = first / 8;
        plane[c].blocks_h = last / 8 + 1 - plane[c].block_y;
        plane[c].stride = (8 * plane[c].blocks_w + 31) / 32 * 32;
    }
}

fic_mcu_range fic_needed_mcus(const fic_jpeg_header *header, const fic_plane plane[3])
{
    fic_mcu_range range = {INT32_MAX, 0, INT32_MAX, 0};
    for (int32_t c = 0; c < header->num_components; c++) {
        int32_t h = c == 0 ? header->h : 1, v = c == 0 ? header->v : 1;
        int32_t left = plane[c].block_x / h, right = (plane[c].block_x + plane[c].blocks_w - 1) / h + 1;
        int32_t top = plane[c].block_y / v, bottom = (plane[c].block_y + plane[c].blocks_h - 1) / v + 1;
        range.left = left < range.left ? left : range.left;
        range.right = right > range.right ? right : range.right;
        range.top = top < range.top ? top : range.top;
        range.bottom = bottom > range.bottom ? bottom : range.bottom;
    }
    return range;
}

/* Lay out the blocks that the crop's filters reach, and where their samples go. */
static int32_t place_planes(fic_decoder *decoder, const fic_crop *crop, fic_source source[3], int32_t origin[3][2])
{
    const fic_jpeg_header *header = &decoder->header;
    fic_plane *plane = decoder->scan.plane;
    size_t offset[3], size = 0;
    fic_layout_planes(header, crop, plane);
    for (int32_t c = 0; c < header->num_components; c++) {
        origin[c][0] = 8 * plane[c].block_x;
        origin[c][1] = 8 * plane[c].block_y;
        source[c].stride = plane[c].stride;
        source[c].width = 8 * plane[c].blocks_w;
        source[c].height = 8 * plane[c].blocks_h;
        offset[c] = size;
        size += (size_t)plane[c].stride * (size_t)source[c].height;
    }
    uint8_t *memory = fic_buffer_reserve(&decoder->planes, size);
    if (!memory)
        return FIC_ERROR_MEMORY;
    for (int32_t c = 0; c < header->num_components; c++) {
        plane[c].samples = memory + offset[c];
        source[c].samples = memory + offset[c];
    }
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

int64_t fic_run_limit(const fic_jpeg_header *header, const uint8_t *jpeg, int64_t size, const uint8_t *index,
                      int32_t every_k, int32_t row, int64_t behind)
{
    int64_t columns = fic_index_columns(header->mcus_per_row, every_k);
    if (behind == columns && ++row == header->mcu_rows)
        return size;
    int64_t end = fic_index_entry(index, columns, header->mcu_rows, row, behind == columns ? 0 : behind).position;
    int64_t limit = (end + 7) / 8;
    /* The last byte belongs to both runs; a 0xff is one with the stuffing behind it. */
    return end % 8 && limit < size && jpeg[limit - 1] == 0xff ? limit + 1 : limit;
}

static int32_t decode_indexed(fic_decoder *decoder, fic_mcu_range range, const uint8_t *jpeg, int64_t size,
                              const uint8_t *index, int64_t index_size, int32_t every_k)
{
    const fic_jpeg_header *header = &decoder->header;
    fic_scan *scan = &decoder->scan;
    int64_t columns = fic_index_columns(header->mcus_per_row, every_k);
    if (index_size != fic_index_size(header->mcus_per_row, header->mcu_rows, every_k))
        return FIC_ERROR_INDEX;
    int64_t from = range.left / every_k, behind = (range.right + every_k - 1) / every_k;
    for (int32_t row = range.top; row < range.bottom; row++) {
        fic_entry_point entry = fic_index_entry(index, columns, header->mcu_rows, row, from);
        int64_t limit = fic_run_limit(header, jpeg, size, index, every_k, row, behind);
        if (entry.position < header->scan_start * 8 || limit > size || entry.position >= limit * 8)
            return FIC_ERROR_INDEX;
        int64_t mcu = (int64_t)row * header->mcus_per_row + from * every_k;
        int32_t code = fic_scan_seek(scan, &entry, mcu, limit);
        if (code == FIC_OK)
            code = fic_scan_skip(scan, range.left - from * every_k, 0);
        if (code == FIC_OK)
            code = fic_scan_decode(scan, row, range.left, range.right);
        if (code != FIC_OK)
            return code;
    }
    return FIC_OK;
}

int32_t fic_valid_crop(int32_t width, int32_t height, const fic_crop *crop)
{
    return width > 0 && height > 0 && width <= 65535 && height <= 65535 && crop->w > 0 && crop->h > 0 && crop->x >= 0 &&
           crop->y >= 0 && crop->w <= width && crop->h <= height && crop->x <= width - crop->w &&
           crop->y <= height - crop->h && crop->out_w > 0 && crop->out_h > 0 && crop->out_w <= FIC_MAX_OUTPUT &&
           crop->out_h <= FIC_MAX_OUTPUT && crop->resize >= 0 && crop->resize < FIC_NUM_RESIZES;
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

    fic_source source[3];
    int32_t origin[3][2];
    code = place_planes(decoder, &crop, source, origin);
    if (code == FIC_OK)
        code = fic_prepare_scan(decoder, jpeg, jpeg_size);
    if (code == FIC_OK) {
        fic_mcu_range range = fic_needed_mcus(header, decoder->scan.plane);
        if (index)
            code = decode_indexed(decoder, range, jpeg, jpeg_size, index, index_size, every_k);
        else
            code = decode_in_order(decoder, range);
    }
    if (code == FIC_OK)
        return fic_resample_crop(decoder, &crop, width, height, header->num_components, header->colour, header->h,
                                 header->v, source, (const int32_t(*)[2])origin, out);
    /* What is odd is for libjpeg to judge. An index is made of whole files alone: with one, this is damage. */
    if (index || code == FIC_ERROR_MEMORY)
        return code;
    return fic_fallback_crop(decoder, jpeg, jpeg_size, &crop, out) == FIC_OK ? FIC_OK : code;
}

int32_t fic_resize_crop(fic_decoder *decoder, const uint8_t *rgb, int32_t width, int32_t height, int32_t crop_x,
                        int32_t crop_y, int32_t crop_w, int32_t crop_h, int32_t out_w, int32_t out_h, int32_t flip,
                        int32_t resize, uint8_t *out)
{
    fic_crop crop = {crop_x, crop_y, crop_w, crop_h, out_w, out_h, flip != 0, resize};
    if (!decoder || !rgb || !out || !fic_valid_crop(width, height, &crop))
        return FIC_ERROR_ARGUMENT;
    int32_t left = crop_x & ~1, top = crop_y & ~1; /* filters start at even samples */
    int32_t plane_w = crop_x + crop_w - left, plane_h = crop_y + crop_h - top;
    size_t stride = (size_t)(plane_w + 31) / 32 * 32, size = stride * (size_t)plane_h;
    uint8_t *memory = fic_buffer_reserve(&decoder->planes, 3 * size);
    if (!memory)
        return FIC_ERROR_MEMORY;
    for (int32_t y = 0; y < plane_h; y++) {
        uint8_t *to = memory + (size_t)y * stride;
        fic_split_rgb(rgb + ((int64_t)(top + y) * width + left) * 3, plane_w, to, to + size, to + 2 * size,
                      decoder->simd);
    }
    fic_source source[3];
    int32_t origin[3][2];
    for (int32_t c = 0; c < 3; c++) {
        fic_source plane = {memory + (size_t)c * size, (int32_t)stride, plane_w, plane_h};
        source[c] = plane;
        origin[c][0] = left;
        origin[c][1] = top;
    }
    return fic_resample_crop(decoder, &crop, width, height, 3, FIC_COLOUR_RGB, 1, 1, source,
                             (const int32_t(*)[2])origin, out);
}

int32_t fic_probe(const uint8_t *jpeg, int64_t jpeg_size, int32_t *info)
{
    if (!jpeg || jpeg_size < 0 || !info)
        return FIC_ERROR_ARGUMENT;
    fic_jpeg_header header;
    int32_t code = fic_parse_header(jpeg, jpeg_size, &header);
    if (code != FIC_OK)
        return code;
    int32_t h = header.num_components == 1 ? 1 : 0, v = h;
    const fic_component *c = header.component;
    if (header.num_components >= 3 && c[0].h % c[1].h == 0 && c[0].v % c[1].v == 0 && c[0].h / c[1].h <= 2 &&
        c[0].v / c[1].v <= 2) {
        h = c[0].h / c[1].h;
        v = c[0].v / c[1].v;
    }
    info[0] = header.width;
    info[1] = header.height;
    info[2] = header.num_components;
    info[3] = h;
    info[4] = v;
    info[5] = header.progressive;
    info[6] = header.native;
    info[7] = header.restart_interval;
    return FIC_OK;
}
