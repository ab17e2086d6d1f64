/*
 * The host's part of decoding on a GPU: copies what the crops of a batch need, and nothing else, into one buffer.
 *
 * Only what is certain to be right goes to the GPU. A sample that is odd in any way, damaged or of a kind that the
 * kernels do not know, goes to the CPU's decoder, whose verdict counts.
 */
#include <string.h>

#include "decoder.h"
#include "gpu_batch.h"

typedef struct {
    const uint8_t *jpeg;
    int64_t limit;       /* no byte from here on is read */
    uint8_t *bytes, *to; /* where the image's bytes begin and continue */
    fic_gpu_item *item;  /* the next one */
} gathering;

/* Copy [from, end) without stuffing. Returns end, or the offset of the marker that stopped it. */
static int64_t copy_plain(gathering *g, int64_t from, int64_t end)
{
    while (from < end) {
        const uint8_t *found = memchr(g->jpeg + from, 0xff, (size_t)(end - from));
        int64_t plain = found ? found - (g->jpeg + from) : end - from;
        memcpy(g->to, g->jpeg + from, (size_t)plain);
        g->to += plain;
        from += plain;
        if (!found)
            break;
        if (from + 1 >= end || g->jpeg[from + 1] != 0)
            return from;
        *g->to++ = 0xff;
        from += 2;
    }
    return end;
}

static uint32_t bits_written(const gathering *g)
{
    return (uint32_t)(g->to - g->bytes) * 8;
}

/* The offset after restart marker `number`, which must be at `at`; 0 when it is not. */
static int64_t after_restart(const gathering *g, int64_t at, int64_t number)
{
    int64_t code = at;
    while (code < g->limit && g->jpeg[code] == 0xff)
        code++;
    return code > at && code < g->limit && g->jpeg[code] == 0xd0 + number % 8 ? code + 1 : 0;
}

/*
 * The MCUs from one entry point to `next`, the next one in the row, NULL after the last that is needed. A restart
 * marker ends an item. Returns 0 when something is odd.
 */
static int32_t gather_run(gathering *g, const fic_jpeg_header *header, int32_t row, int32_t column, int32_t count,
                          int32_t right, fic_entry_point entry, const fic_entry_point *next)
{
    int64_t raw = entry.position >> 3, interval = header->restart_interval;
    uint32_t bit = (uint32_t)entry.position & 7;
    while (column < right) {
        int64_t mcu = (int64_t)row * header->mcus_per_row + column;
        int64_t until_restart = interval ? interval - mcu % interval : count;
        int32_t part = until_restart < count ? (int32_t)until_restart : count;
        fic_gpu_item *item = g->item++;
        item->begin = bits_written(g) + bit;
        for (int32_t c = 0; c < 3; c++)
            item->dc[c] = (int16_t)entry.dc[c];
        item->row = (uint16_t)row;
        item->column = (uint16_t)column;
        item->count = (uint8_t)(column + part < right ? part : right - column);
        item->exact = 0;
        column += part;
        count -= part;
        if (!interval || part < until_restart) {
            int64_t end = next ? next->position >> 3 : g->limit;
            if (raw > end)
                return 0;
            int64_t stop = copy_plain(g, raw, end);
            item->end = bits_written(g) + (next ? (uint32_t)next->position & 7 : 0);
            item->exact = next != NULL;
            return !next || stop == end;
        }
        int64_t stop = copy_plain(g, raw, g->limit);
        item->end = bits_written(g);
        if (column >= right)
            return 1;
        raw = after_restart(g, stop, (mcu + part) / interval - 1);
        if (!raw)
            return 0;
        if (count == 0)
            return next && next->position == raw * 8 && !next->dc[0] && !next->dc[1] && !next->dc[2];
        bit = 0;
        memset(entry.dc, 0, sizeof entry.dc);
    }
    return 1;
}

static int32_t gather_rows(gathering *g, const fic_jpeg_header *header, const fic_gather_sample *sample,
                           fic_mcu_range range, int32_t every_k)
{
    const uint8_t *index = (const uint8_t *)(uintptr_t)sample->index;
    int64_t columns = fic_index_columns(header->mcus_per_row, every_k);
    int64_t from = range.left / every_k, end = ((int64_t)range.right + every_k - 1) / every_k;
    for (int32_t row = range.top; row < range.bottom; row++) {
        fic_entry_point entry = fic_index_entry(index, columns, header->mcu_rows, row, from), next;
        g->limit = fic_run_limit(header, g->jpeg, sample->size, index, every_k, row, end);
        if (entry.position < header->scan_start * 8 || g->limit > sample->size || entry.position >= g->limit * 8)
            return 0;
        for (int64_t column = from; column < end; column++, entry = next) {
            int32_t is_last = column + 1 == end;
            if (!is_last) {
                next = fic_index_entry(index, columns, header->mcu_rows, row, column + 1);
                if (next.position <= entry.position || next.position >= g->limit * 8)
                    return 0;
            }
            int64_t first = column * every_k, rest = header->mcus_per_row - first;
            if (!gather_run(g, header, row, (int32_t)first, rest < every_k ? (int32_t)rest : every_k, range.right,
                            entry, is_last ? NULL : &next))
                return 0;
        }
    }
    return 1;
}

/* An upper bound of the bytes that gather_rows writes; 0 when the index leads outside the JPEG. */
static int64_t bound(const fic_jpeg_header *header, const fic_gather_sample *sample, fic_mcu_range range,
                     int32_t every_k, int64_t *num_items)
{
    const uint8_t *index = (const uint8_t *)(uintptr_t)sample->index;
    const uint8_t *jpeg = (const uint8_t *)(uintptr_t)sample->jpeg;
    int64_t columns = fic_index_columns(header->mcus_per_row, every_k);
    int64_t from = range.left / every_k, end = ((int64_t)range.right + every_k - 1) / every_k, bytes = 0;
    for (int32_t row = range.top; row < range.bottom; row++) {
        int64_t begin = fic_index_entry(index, columns, header->mcu_rows, row, from).position / 8;
        int64_t limit = fic_run_limit(header, jpeg, sample->size, index, every_k, row, end);
        if (limit <= begin || limit > sample->size)
            return 0;
        bytes += limit - begin;
    }
    *num_items = end - from;
    if (header->restart_interval)
        *num_items += (end - from) * every_k / header->restart_interval + 1;
    *num_items *= range.bottom - range.top;
    return bytes;
}

static int64_t reserve(int64_t *workspace, int64_t size)
{
    int64_t at = *workspace;
    *workspace += (size + 31) / 32 * 32;
    return at;
}

/* Where the GPU keeps what it makes of the image. */
static void lay_out(fic_gpu_image *image, const fic_jpeg_header *header, const fic_crop *crop, const fic_plane plane[3],
                    int64_t *workspace)
{
    for (int32_t c = 0; c < header->num_components; c++) {
        fic_gpu_plane *to = &image->plane[c];
        to->block_x = plane[c].block_x;
        to->block_y = plane[c].block_y;
        to->blocks_w = plane[c].blocks_w;
        to->blocks_h = plane[c].blocks_h;
        to->stride = plane[c].stride;
        to->samples = reserve(workspace, 8LL * plane[c].blocks_h * plane[c].stride);
        image->rows[c] = reserve(workspace, 2LL * crop->out_h * plane[c].stride);
    }
    for (int32_t chroma = 0; chroma < (header->num_components > 1 ? 2 : 1); chroma++) {
        fic_factors pixels = fic_pixels_per_sample(header, chroma);
        int32_t origin[2] = {8 * plane[chroma].block_x, 8 * plane[chroma].block_y};
        fic_filter_keys(crop, header->width, header->height, pixels, origin, &image->filter[FIC_GPU_ACROSS][chroma].key,
                        &image->filter[FIC_GPU_DOWN][chroma].key);
        for (int32_t axis = 0; axis < 2; axis++) {
            fic_gpu_filter *filter = &image->filter[axis][chroma];
            filter->taps = fic_filter_taps(&filter->key);
            filter->first = reserve(workspace, 4LL * filter->key.out_size);
            filter->count = reserve(workspace, 4LL * filter->key.out_size);
            filter->weight = reserve(workspace, 2LL * filter->taps * filter->key.out_size);
        }
    }
}

/* Quantisers and Huffman tables. Returns 0 for some that the kernels cannot take. */
static int32_t gather_tables(fic_gpu_image *image, const fic_jpeg_header *header)
{
    for (int32_t c = 0; c < header->num_components; c++) {
        const fic_component *component = &header->component[c];
        const uint8_t *quantiser = header->quantiser[component->quantiser];
        if (!quantiser ||
            (c == 2 && (component->dc != header->component[1].dc || component->ac != header->component[1].ac)))
            return 0;
        fic_order_quantisers(quantiser, header->quantiser_is_16bit[component->quantiser], fic_coefficient_order,
                             image->quantisers[c]);
        for (int32_t is_ac = 0; c < 2 && is_ac < 2; is_ac++) {
            const uint8_t *spec = header->huffman[is_ac][is_ac ? component->ac : component->dc];
            fic_symbols table;
            int32_t values = 0;
            for (int32_t i = 0; spec && i < 16; i++)
                values += spec[i];
            if (!spec || values > 256 || !fic_huffman_ranges(&table, spec))
                return 0;
            memcpy(image->huffman[c][is_ac], spec, 16 + (size_t)values);
        }
    }
    return 1;
}

/*
 * Append one sample at staging + *used. Returns 1, or 0 when it is one for the CPU. Where it does not fit below
 * `capacity`, nothing is written, and *used passes it.
 */
static int32_t gather_sample(const fic_gather_sample *sample, int32_t every_k, int32_t out_w, int32_t out_h,
                             int32_t resize, fic_gpu_image *image, uint8_t *staging, int64_t capacity, int64_t *used,
                             int64_t *workspace)
{
    const uint8_t *jpeg = (const uint8_t *)(uintptr_t)sample->jpeg;
    fic_crop crop = {sample->x, sample->y, sample->w, sample->h, out_w, out_h, sample->flip != 0, resize};
    fic_jpeg_header header;
    if (!jpeg || !sample->index || !fic_valid_crop(sample->width, sample->height, &crop) ||
        fic_parse_header(jpeg, sample->size, &header) != FIC_OK || !header.native || header.width != sample->width ||
        header.height != sample->height ||
        sample->index_size != fic_index_size(header.mcus_per_row, header.mcu_rows, every_k))
        return 0;
    fic_plane plane[3];
    fic_layout_planes(&header, &crop, plane);
    fic_mcu_range range = fic_needed_mcus(&header, plane);
    int64_t num_items, num_bytes = bound(&header, sample, range, every_k, &num_items);
    if (num_bytes == 0 || num_bytes > UINT32_MAX / 8 - FIC_SEGMENT_PADDING)
        return 0;
    int64_t items_size = num_items * (int64_t)sizeof(fic_gpu_item);
    if (*used + items_size + num_bytes + 16 > capacity) {
        *used += items_size + num_bytes + 16;
        return 1;
    }
    gathering g = {jpeg, 0, staging + *used + items_size, staging + *used + items_size,
                   (fic_gpu_item *)(staging + *used)};
    if (!gather_tables(image, &header) || !gather_rows(&g, &header, sample, range, every_k))
        return 0;
    image->items = *used;
    image->num_items = (int32_t)(g.item - (fic_gpu_item *)(staging + *used));
    image->bytes = *used + items_size;
    image->num_components = header.num_components;
    image->colour = (int32_t)header.colour;
    image->luma_blocks_x = header.subsampling_x;
    image->luma_blocks_y = header.subsampling_y;
    lay_out(image, &header, &crop, plane, workspace);
    *used = (g.to - staging + 15) / 16 * 16;
    return 1;
}

int32_t fic_gpu_gather(const fic_gather_sample *samples, uint8_t *on_cpu, int32_t count, int32_t every_k, int32_t out_w,
                       int32_t out_h, int32_t resize, uint8_t *staging, int64_t begin, int64_t capacity,
                       fic_gather_result *result)
{
    if (!samples || !on_cpu || count < 0 || every_k < 0 || every_k > 255 || !staging || begin < 0 || begin % 16 ||
        !result || out_w < 1 || out_h < 1 || out_w > FIC_MAX_OUTPUT || out_h > FIC_MAX_OUTPUT || resize < 0 ||
        resize >= FIC_NUM_RESIZES)
        return FIC_ERROR_ARGUMENT;
    fic_gpu_image *images = (fic_gpu_image *)(staging + begin);
    int64_t used = begin + count * (int64_t)sizeof *images, pixels = (int64_t)out_w * out_h * 3;
    int32_t fits = used <= capacity;
    fic_gpu_image scrap;
    result->workspace = 0;
    result->max_items = 0;
    result->num_on_cpu = 0;
    for (int32_t i = 0; i < count; i++) {
        fic_gpu_image *image = fits ? &images[i] : &scrap;
        memset(image, 0, sizeof *image);
        on_cpu[i] = on_cpu[i] || !gather_sample(&samples[i], every_k, out_w, out_h, resize, image, staging,
                                                fits ? capacity : 0, &used, &result->workspace);
        if (on_cpu[i]) {
            memset(image, 0, sizeof *image);
            result->num_on_cpu++;
        }
        fits = fits && used <= capacity;
        result->max_items = image->num_items > result->max_items ? image->num_items : result->max_items;
    }
    used += FIC_SEGMENT_PADDING;
    result->pixels = (used + 15) / 16 * 16;
    result->used = result->pixels + result->num_on_cpu * pixels;
    if (result->used > capacity)
        return FIC_ERROR_CAPACITY;
    int64_t at = result->pixels;
    for (int32_t i = 0; i < count; i++) {
        if (on_cpu[i]) {
            images[i].bytes = at;
            at += pixels;
        }
    }
    return FIC_OK;
}
