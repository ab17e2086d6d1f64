/* Input: CONTROL_BYTES that choose crop and output size, then a JPEG. */
#include "fuzz_common.h"

/* The whole image, by a context that has seen all inputs before and by a new one. */
static void read_both(fic_decoder *decoder, const uint8_t *jpeg, int64_t size)
{
    fic_decoder *decoders[2] = {decoder, fic_decoder_new()};
    uint8_t *pixels[2] = {NULL, NULL};
    int32_t codes[2], sizes[2][2] = {{0, 0}, {0, 0}};
    for (int32_t i = 0; i < 2; i++) {
        codes[i] = fic_read_image(decoders[i], jpeg, size, NULL, 0, sizes[i]);
        int64_t bytes = (int64_t)sizes[i][0] * sizes[i][1] * 3;
        if (codes[i] != FIC_OK || bytes > 3 * MAX_PIXELS)
            continue;
        pixels[i] = malloc((size_t)bytes);
        codes[i] = fic_read_image(decoders[i], jpeg, size, pixels[i], bytes, sizes[i]);
    }
    if (codes[0] != codes[1] || memcmp(sizes[0], sizes[1], sizeof sizes[0]))
        abort();
    if (codes[0] == FIC_OK && pixels[0] && memcmp(pixels[0], pixels[1], (size_t)sizes[0][0] * (size_t)sizes[0][1] * 3))
        abort();
    free(pixels[0]);
    free(pixels[1]);
    fic_decoder_free(decoders[1]);
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
    int32_t info[8];
    if (fic_probe(jpeg, jpeg_size, info) != 0 || (int64_t)info[0] * info[1] > MAX_PIXELS)
        return 0;
    box b = draw_box(control, info[0], info[1]);
    if (control[7] == 255) /* a box and sizes that may be anything */
        memcpy(&b.x, control + 8, 8);
    uint8_t *out;
    decode_both(decoder, jpeg, jpeg_size, info[0] + (control[7] == 254), info[1], &b, NULL, 0, 0, &out);
    free(out);
    read_both(decoder, jpeg, jpeg_size);
    return 0;
}
