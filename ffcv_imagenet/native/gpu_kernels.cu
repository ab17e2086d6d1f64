/*
 * Decoding crops on a GPU, in four kernels over a batch that fic_gpu_gather made. The pixels are the CPU decoder's, bit
 * by bit: the arithmetic is in headers that both compile.
 *
 *   fic_gpu_filters        weights of the resizing filters, a thread per output row or column
 *   fic_gpu_decode         entropy-coded data to samples, a thread per entry point
 *   fic_gpu_resize_down    the planes vertically, a thread per four samples
 *   fic_gpu_resize_across  horizontally, colours, normalisation, a thread per pixel
 *
 * blockIdx.x is the image; blocks of one image share its work by blockIdx.y. A block's threads meet only between the
 * parts named EACH_THREAD, so that a host compiler can make each part a loop over the threads: that is how these
 * kernels are tested without a GPU.
 */
#define THREADS 128

#define FIC_ALIGNED_LOADS
#define FIC_CELL_STRIDE THREADS
#include "entropy.h"
#include "gpu_batch.h"
#include "idct.h"

#if defined(__CUDACC__)
#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)
#define SHARED __shared__
#define EACH_THREAD(thread) if (const uint32_t thread = threadIdx.x; true)
#define MEET() __syncthreads()
#endif

/*
 * Every kernel's. images: offset of the fic_gpu_image array in `staging`; status: an int32 per image, set to 1 where
 * its data are damaged; levels: [3, 256] uint32, the output element for each red, green and blue value, in the lowest
 * element_size (1, 2 or 4) bytes; out: [images, out_h, out_w, 3] elements.
 */
#define ARGUMENTS                                                                                                      \
    const uint8_t *staging, int64_t images, uint8_t *workspace, int32_t *status, const uint32_t *levels, uint8_t *out, \
        int64_t element_size, int64_t out_w, int64_t out_h

#define IMAGE ((const fic_gpu_image *)(staging + images) + blockIdx.x)

/* blockIdx.y: 0 and 1 across, 2 and 3 down, each luma and chroma. */
KERNEL fic_gpu_filters(ARGUMENTS)
{
    const fic_gpu_image *image = IMAGE;
    if (image->num_components == 0 || (image->num_components == 1 && blockIdx.y % 2 == 1))
        return;
    const fic_gpu_filter *filter = &image->filter[blockIdx.y / 2][blockIdx.y % 2];
    const fic_filter_key key = filter->key;
    int32_t *first = (int32_t *)(workspace + filter->first), *count = (int32_t *)(workspace + filter->count);
    int16_t *weight = (int16_t *)(workspace + filter->weight);
    EACH_THREAD (thread) {
        for (int32_t i = (int32_t)thread; i < key.out_size; i += THREADS) {
            int64_t in = key.crop_size, size = key.out_size, number = key.mirror ? size - 1 - i : i;
            int64_t from = ((2 * number + 1) * in - fic_filter_half_width(&key)) / (2 * size);
            fic_filter_output output =
                fic_filter_begin(&key, (int32_t)number, from > 0 ? (int32_t)from : 0, fic_filter_pixels(&key));
            first[i] = output.first - key.origin;
            count[i] = output.count;
            for (int32_t tap = 0; tap < output.count; tap++)
                weight[(int64_t)tap * size + i] = (int16_t)fic_filter_next(&key, &output);
        }
    }
}

/* Decode an item's MCUs into the planes. Returns 0 when its data are not certain to be whole. */
FIC_INLINE int32_t decode_item(const fic_gpu_image *image, const fic_gpu_item *item, const uint8_t *bytes,
                               const fic_symbols tables[2][2], const uint16_t quantisers[3][64],
                               const uint8_t order[FIC_ORDER_SIZE], int16_t *cells, uint8_t *workspace)
{
    fic_bits bits;
    bits.window = 0;
    bits.next = bytes + (item->begin >> 3);
    bits.available = 0;
    fic_bits_refill(&bits);
    fic_bits_consume(&bits, item->begin & 7u);
    int32_t luma = item->dc[0], blue = item->dc[1], red = item->dc[2];
    int32_t luma_blocks = image->luma_blocks_x * image->luma_blocks_y;
    int32_t num_blocks = luma_blocks + image->num_components - 1;
    int64_t position = item->begin;
    for (int32_t column = item->column; column < item->column + item->count; column++) {
        for (int32_t i = 0; i < num_blocks; i++) {
            int32_t c = i < luma_blocks ? 0 : i - luma_blocks + 1;
            int32_t blocks_x = c == 0 ? image->luma_blocks_x : 1, blocks_y = c == 0 ? image->luma_blocks_y : 1;
            int32_t in_mcu = c == 0 ? i : 0;
            int32_t dc = c == 0 ? luma : c == 1 ? blue : red;
            int32_t result = fic_decode_block_singly(&bits, &tables[c > 0][0], &tables[c > 0][1], order, &dc, cells);
            if (result < 0)
                return 0;
            luma = c == 0 ? dc : luma;
            blue = c == 1 ? dc : blue;
            red = c == 2 ? dc : red;
            const fic_gpu_plane *plane = &image->plane[c];
            int32_t x = column * blocks_x + in_mcu % blocks_x - plane->block_x;
            int32_t y = item->row * blocks_y + in_mcu / blocks_x - plane->block_y;
            if ((uint32_t)x >= (uint32_t)plane->blocks_w || (uint32_t)y >= (uint32_t)plane->blocks_h)
                continue;
            uint8_t *samples = workspace + plane->samples + (int64_t)y * 8 * plane->stride + x * 8;
            if (result == FIC_BLOCK_FULL) {
                fic_idct_block(cells, quantisers[c], samples, plane->stride);
            } else {
                uint64_t line = fic_idct_dc(cells[0], quantisers[c][0]) * 0x0101010101010101u;
                for (int32_t row = 0; row < 8; row++)
                    fic_store_samples(samples + (int64_t)row * plane->stride, line);
            }
        }
        position = (bits.next - bytes) * 8 - bits.available;
        if (position > item->end)
            return 0;
    }
    if (!item->exact)
        return 1;
    const fic_gpu_item *next = item + 1;
    return position == item->end && luma == next->dc[0] && blue == next->dc[1] && red == next->dc[2];
}

KERNEL fic_gpu_decode(ARGUMENTS)
{
    SHARED fic_symbols tables[2][2];
    SHARED uint16_t quantisers[3][64];
    SHARED uint8_t order[FIC_ORDER_SIZE]; /* in constant memory, threads that want different ones would wait in turn */
    SHARED int16_t cells[(FIC_CELL_UNUSED + 1) * THREADS];
    const fic_gpu_image *image = IMAGE;
    if (blockIdx.y * THREADS >= (uint32_t)image->num_items)
        return;
    fic_symbols *table = &tables[0][0];
    EACH_THREAD (thread) {
        if (thread < 4)
            fic_huffman_ranges(&table[thread], image->huffman[thread / 2][thread % 2]);
        for (uint32_t i = thread; i < FIC_ORDER_SIZE; i += THREADS)
            order[i] = fic_coefficient_order[i];
        for (uint32_t i = thread; i < 4 * 256; i += THREADS)
            table[i / 256].values[i % 256] = image->huffman[i / 512][i / 256 % 2][16 + i % 256];
        for (uint32_t i = thread; i < 3 * 64; i += THREADS)
            quantisers[i / 64][i % 64] = image->quantisers[i / 64][i % 64];
    }
    MEET();
    EACH_THREAD (thread) {
        for (uint32_t i = thread; i < 4u << FIC_LOOKUP_BITS; i += THREADS) {
            uint32_t number = i >> FIC_LOOKUP_BITS, index = i & ((1u << FIC_LOOKUP_BITS) - 1);
            table[number].lookup[index] = fic_lookup_entry(&table[number], number % 2, index);
        }
    }
    MEET();
    EACH_THREAD (thread) {
        const fic_gpu_item *items = (const fic_gpu_item *)(staging + image->items);
        for (uint32_t i = blockIdx.y * THREADS + thread; i < (uint32_t)image->num_items; i += gridDim.y * THREADS)
            if (!decode_item(image, &items[i], staging + image->bytes, tables, quantisers, order, cells + thread,
                             workspace))
                status[blockIdx.x] = 1;
    }
}

#define DOWN_SHIFT (FIC_WEIGHT_BITS - FIC_FRACTION_BITS)

KERNEL fic_gpu_resize_down(ARGUMENTS)
{
    const fic_gpu_image *image = IMAGE;
    for (int32_t c = 0; c < image->num_components; c++) {
        const fic_gpu_plane *plane = &image->plane[c];
        const fic_gpu_filter *filter = &image->filter[FIC_GPU_DOWN][c > 0];
        const int32_t *first = (const int32_t *)(workspace + filter->first);
        const int32_t *count = (const int32_t *)(workspace + filter->count);
        const int16_t *weight = (const int16_t *)(workspace + filter->weight);
        const uint8_t *samples = workspace + plane->samples;
        uint64_t *rows = (uint64_t *)(workspace + image->rows[c]);
        uint32_t stride = (uint32_t)plane->stride, fours = 2u * (uint32_t)plane->blocks_w;
        uint32_t size = (uint32_t)out_h * fours;
        EACH_THREAD (thread) {
            for (uint32_t i = blockIdx.y * THREADS + thread; i < size; i += gridDim.y * THREADS) {
                uint32_t y = i / fours, x = i % fours;
                const uint8_t *from = samples + (int64_t)first[y] * stride + 4 * x;
                int32_t sum[4];
                for (int32_t n = 0; n < 4; n++)
                    sum[n] = 1 << (DOWN_SHIFT - 1);
                for (int32_t tap = 0, taps = count[y]; tap < taps; tap++, from += stride) {
                    int32_t w = weight[(int64_t)tap * out_h + y];
                    uint32_t four = *(const uint32_t *)from;
                    for (int32_t n = 0; n < 4; n++)
                        sum[n] += w * (int32_t)(four >> 8 * n & 255u);
                }
                uint64_t result = 0;
                for (int32_t n = 0; n < 4; n++)
                    result |= (uint64_t)(uint16_t)(sum[n] >> DOWN_SHIFT) << 16 * n;
                rows[(int64_t)y * (stride / 4) + x] = result;
            }
        }
    }
}

FIC_INLINE void store_element(uint8_t *out, int64_t number, int64_t element_size, uint32_t bits)
{
    if (element_size == 2)
        ((uint16_t *)out)[number] = (uint16_t)bits;
    else if (element_size == 4)
        ((uint32_t *)out)[number] = bits;
    else
        out[number] = (uint8_t)bits;
}

KERNEL fic_gpu_resize_across(ARGUMENTS)
{
    const fic_gpu_image *image = IMAGE;
    uint32_t size = (uint32_t)(out_w * out_h);
    EACH_THREAD (thread) {
        for (uint32_t i = blockIdx.y * THREADS + thread; i < size; i += gridDim.y * THREADS) {
            uint32_t y = i / (uint32_t)out_w, x = i % (uint32_t)out_w;
            int32_t s[3] = {0, 0, 0};
            for (int32_t c = 0; c < 3; c++) {
                if (image->num_components == 0)
                    s[c] = staging[image->bytes + 3 * (int64_t)i + c];
                if (c >= image->num_components)
                    continue;
                const fic_gpu_filter *filter = &image->filter[FIC_GPU_ACROSS][c > 0];
                const int16_t *weight = (const int16_t *)(workspace + filter->weight) + x;
                const int16_t *row = (const int16_t *)(workspace + image->rows[c]) +
                                     (int64_t)y * image->plane[c].stride +
                                     ((const int32_t *)(workspace + filter->first))[x];
                int32_t sum = 1 << (FIC_WEIGHT_BITS - 1), taps = ((const int32_t *)(workspace + filter->count))[x];
                for (int32_t tap = 0; tap < taps; tap++)
                    sum += weight[(int64_t)tap * out_w] * row[tap];
                s[c] = sum >> FIC_WEIGHT_BITS;
            }
            if (image->num_components > 0)
                fic_to_rgb(image->colour, s);
            for (int32_t c = 0; c < 3; c++)
                store_element(out, ((int64_t)blockIdx.x * size + i) * 3 + c, element_size, levels[256 * c + s[c]]);
        }
    }
}
