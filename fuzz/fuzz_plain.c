/* Input: CONTROL_BYTES that choose crop and output size, then a JPEG. */
#include "fuzz_common.h"

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
    fic_read_image(jpeg, jpeg_size, info.width, info.height, whole);
    free(whole);
    return 0;
}
