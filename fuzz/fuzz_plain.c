/* Input: CONTROL_BYTES that choose crop and output size, then a JPEG. */
#include "fuzz_common.h"

/* The whole image: libturbojpeg's pixels, also where it warns of something and continues, with SIMD and without. */
static int32_t read_whole(fic_decoder *decoder, const uint8_t *jpeg, int64_t size, int32_t width, int32_t height,
                          uint8_t *pixels)
{
    size_t bytes = (size_t)width * (size_t)height * 3;
    uint8_t *scalar = malloc(bytes);
    fic_set_simd(decoder, 1);
    int32_t code = fic_read_plain_image(decoder, jpeg, size, width, height, pixels);
    fic_decoder *fresh = fic_decoder_new();
    fic_set_simd(fresh, 0);
    if (fic_read_plain_image(fresh, jpeg, size, width, height, scalar) != code)
        abort();
    if (code == FIC_OK && memcmp(pixels, scalar, bytes))
        abort();
    int32_t its_code = fic_read_image(jpeg, size, width, height, scalar);
    if (code == FIC_OK && (its_code == FIC_OK || its_code == FIC_ERROR_FALLBACK) && memcmp(pixels, scalar, bytes))
        abort();
    fic_decoder_free(fresh);
    free(scalar);
    return code;
}

/* Its pixels as a file: the same with SIMD and without, and with the index that it would be given afterwards. */
static void write_whole(fic_decoder *decoder, const uint8_t *pixels, int32_t width, int32_t height, int32_t quality,
                        int32_t k)
{
    int64_t capacity = fic_written_capacity(width, height), size[2];
    int64_t index_size[2] = {fic_written_index_capacity(width, height, k), 0};
    index_size[1] = index_size[0];
    uint8_t *jpeg[2], *index[2];
    for (int32_t i = 0; i < 2; i++) {
        jpeg[i] = malloc((size_t)capacity);
        index[i] = malloc((size_t)index_size[i]);
        fic_set_simd(decoder, i);
        size[i] =
            fic_write_jpeg(decoder, pixels, width, height, quality, jpeg[i], capacity, k, index[i], &index_size[i]);
    }
    if (size[0] <= 0 || size[0] != size[1] || memcmp(jpeg[0], jpeg[1], (size_t)size[0]))
        abort();
    if (index_size[0] != index_size[1] || memcmp(index[0], index[1], (size_t)index_size[0]))
        abort();
    if (fic_build_index(decoder, jpeg[0], size[0], k, index[1], index_size[1]) != index_size[0] ||
        memcmp(index[0], index[1], (size_t)index_size[0]))
        abort();
    for (int32_t i = 0; i < 2; i++) {
        free(jpeg[i]);
        free(index[i]);
    }
}

static void shrink_whole(fic_decoder *decoder, const uint8_t *pixels, int32_t width, int32_t height, int32_t out_w,
                         int32_t out_h)
{
    size_t bytes = (size_t)out_w * (size_t)out_h * 3;
    uint8_t *out[2] = {malloc(bytes), malloc(bytes)};
    int32_t code[2];
    for (int32_t i = 0; i < 2; i++) {
        fic_set_simd(decoder, i);
        code[i] = fic_shrink_area(decoder, pixels, width, height, out_w, out_h, out[i]);
    }
    if (code[0] != code[1] || (code[0] == FIC_OK && memcmp(out[0], out[1], bytes)))
        abort();
    free(out[0]);
    free(out[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static fic_decoder *decoder;
    if (!decoder)
        decoder = fic_decoder_new();
    if (size < CONTROL_BYTES)
        return 0;
    const uint8_t *control = data, *jpeg = data + CONTROL_BYTES;
    int64_t jpeg_size = (int64_t)size - CONTROL_BYTES;
    fic_jpeg_info info;
    if (fic_probe(jpeg, jpeg_size, &info) != 0 || (int64_t)info.width * info.height > MAX_PIXELS)
        return 0;
    box b = draw_box(control, info.width, info.height);
    if (control[7] == 255) /* a box and sizes that may be anything */
        memcpy(&b.x, control + 8, 8);
    uint8_t *out;
    decode_both(decoder, jpeg, jpeg_size, info.width + (control[7] == 254), info.height, &b, NULL, 0, 0, &out);
    free(out);
    uint8_t *whole = malloc((size_t)info.width * (size_t)info.height * 3);
    if (read_whole(decoder, jpeg, jpeg_size, info.width, info.height, whole) == FIC_OK) {
        write_whole(decoder, whole, info.width, info.height, 1 + control[8] % 100, 1 + control[9] % 255);
        shrink_whole(decoder, whole, info.width, info.height, 1 + scaled(control[10], info.width),
                     1 + scaled(control[11], info.height));
    }
    free(whole);
    return 0;
}
