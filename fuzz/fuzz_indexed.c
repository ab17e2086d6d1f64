/*
 * Input: CONTROL_BYTES, then up to 15 patches of 4 bytes (offset, xor, or-mask) for the index, then a JPEG. Without
 * patches the index is what fic_build_index made, and the pixels must equal those without one; a JPEG that cannot be
 * indexed gets an index of the right size out of its own bytes. The GPU's kernels get it too: where they find nothing
 * wrong, the CPU's decoder must have found nothing wrong, and the pixels must be equal.
 */
#include "../tests/helpers/gpu_on_host.h"
#include "fuzz_common.h"

static int64_t expected_size(const fic_jpeg_info *info, int32_t k)
{
    int64_t mcu_width = 8 * info->subsampling_x, mcu_height = 8 * info->subsampling_y;
    int64_t mcus = (info->width + mcu_width - 1) / mcu_width, rows = (info->height + mcu_height - 1) / mcu_height;
    return (rows * ((mcus + k - 1) / k * 8 + 4) + 7) / 8 * 8;
}

/* In buffers of exactly the sizes that are asked for. code, out: what the CPU's decoder made of it. */
static void compare_gpu(const uint8_t *jpeg, int64_t jpeg_size, const fic_jpeg_info *info, const box *b,
                        const uint8_t *index, int64_t index_size, int32_t k, int32_t code, const uint8_t *out)
{
    fic_gather_sample sample = {
        .jpeg = (uint64_t)(uintptr_t)jpeg,
        .size = jpeg_size,
        .index = (uint64_t)(uintptr_t)index,
        .index_size = index_size,
        .width = info->width,
        .height = info->height,
        .x = b->x,
        .y = b->y,
        .w = b->w,
        .h = b->h,
        .flip = b->flip,
    };
    fic_gather_result result;
    uint8_t on_cpu = 0, *staging = malloc(1);
    int64_t capacity = 1, pixels = (int64_t)b->out_w * b->out_h * 3;
    while (fic_gpu_gather(&sample, &on_cpu, 1, k, b->out_w, b->out_h, b->resize, staging, 0, capacity, &result) !=
           FIC_OK) {
        if (result.used <= capacity)
            abort();
        capacity = result.used;
        staging = realloc(staging, (size_t)capacity);
    }
    if (!on_cpu) {
        staging = realloc(staging, (size_t)result.used);
        uint8_t *workspace = malloc((size_t)result.workspace), *decoded = malloc((size_t)pixels);
        uint32_t levels[768];
        int32_t status = 0, blocks[] = {4, (result.max_items + THREADS - 1) / THREADS, 2, 2};
        for (uint32_t i = 0; i < 768; i++)
            levels[i] = i % 256;
        for (int32_t i = 0; i < 4; i++)
            run_on_host(i, 1, (uint32_t)blocks[i], staging, 0, workspace, &status, levels, decoded, 1, b->out_w,
                        b->out_h);
        if (!status && (code != FIC_OK || memcmp(decoded, out, (size_t)pixels)))
            abort();
        free(decoded);
        free(workspace);
    }
    free(staging);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static fic_decoder *decoder;
    if (!decoder)
        decoder = fic_decoder_new();
    if (size < CONTROL_BYTES)
        return 0;
    const uint8_t *control = data, *patch = data + CONTROL_BYTES;
    int32_t patches = control[8] & 15, k = 1 + control[9] % 9;
    if (size < CONTROL_BYTES + (size_t)patches * 4)
        return 0;
    const uint8_t *jpeg = patch + patches * 4;
    int64_t jpeg_size = (int64_t)(data + size - jpeg);
    fic_jpeg_info info;
    if (fic_probe(jpeg, jpeg_size, &info) != 0 || (int64_t)info.width * info.height > MAX_PIXELS || !info.indexable)
        return 0;

    box b = draw_box(control, info.width, info.height);
    int64_t index_size = expected_size(&info, k);
    uint8_t *index = malloc((size_t)index_size);
    fic_set_simd(decoder, control[10] & 1);
    int64_t built = fic_build_index(decoder, jpeg, jpeg_size, k, index, index_size);
    if (built > 0 && built != index_size)
        abort();
    if (built <= 0)
        for (int64_t i = 0; i < index_size; i++)
            index[i] = jpeg[i % jpeg_size];
    for (int32_t i = 0; i < patches; i++, patch += 4) {
        uint8_t *byte = index + (patch[0] | patch[1] << 8) % index_size;
        *byte = (uint8_t)((*byte ^ patch[2]) | patch[3]);
    }

    uint8_t *out, *plain;
    int32_t code = decode_both(decoder, jpeg, jpeg_size, info.width, info.height, &b, index, index_size, k, &out);
    compare_gpu(jpeg, jpeg_size, &info, &b, index, index_size, k, code, out);
    if (built > 0 && patches == 0) {
        int32_t simd = control[11] & 1;
        if (code != 0 || decode(decoder, simd, jpeg, jpeg_size, info.width, info.height, &b, NULL, 0, 0, &plain) != 0 ||
            memcmp(out, plain, (size_t)(b.out_w * b.out_h * 3)))
            abort();
        free(plain);
    }
    if (control[12] == 255 && index_size > 8) /* too short */
        fic_decode_crop(decoder, jpeg, jpeg_size, info.width, info.height, b.x, b.y, b.w, b.h, b.out_w, b.out_h, b.flip,
                        b.resize, index, index_size - 8, k, out);
    free(out);
    free(index);
    return 0;
}
