/* Decodes many crops of JPEG files, without libturbojpeg and Python, and the whole images, which it shrinks and writes.
 * Prints per file a checksum of all this and how many of the 60 crops could be decoded: crop_checksums SIMD FILE ...;
 * SIMD is 0 or 1, and must be had when it is 1. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "decoder.h"

/* What fallback_turbojpeg.c defines. */
int32_t fic_fallback_crop(fic_decoder *decoder, const uint8_t *jpeg, int64_t size, const fic_crop *crop, uint8_t *out)
{
    (void)decoder, (void)jpeg, (void)size, (void)crop, (void)out;
    return FIC_ERROR_UNSUPPORTED;
}

static uint64_t state = 1;

static int32_t random_below(int32_t bound)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (int32_t)((state >> 33) % (uint32_t)bound);
}

static uint64_t add(uint64_t sum, const uint8_t *bytes, int64_t size)
{
    for (int64_t i = 0; i < size; i++)
        sum = (sum ^ bytes[i]) * 0x100000001b3u; /* FNV-1a */
    return sum;
}

static uint64_t sum_of_crops(fic_decoder *decoder, const uint8_t *jpeg, int64_t size, int *decoded)
{
    static uint8_t index[1 << 20], whole[1 << 20], file[1 << 20], out[96 * 96 * 3];
    enum { EVERY = 3, CROPS = 60 };
    fic_jpeg_info info;
    uint64_t sum = (uint64_t)fic_probe(jpeg, size, &info);
    int64_t index_size = fic_build_index(decoder, jpeg, size, EVERY, index, sizeof index);
    sum = add(sum, index, index_size > 0 ? index_size : 0);
    for (int i = 0; i < CROPS; i++) {
        int32_t w = 1 + random_below(info.width), h = 1 + random_below(info.height);
        int32_t x = random_below(info.width - w + 1), y = random_below(info.height - h + 1);
        int32_t side = 1 + random_below(96), indexed = index_size > 0 && i % 2;
        int32_t code =
            fic_decode_crop(decoder, jpeg, size, info.width, info.height, x, y, w, h, side, side, i % 5 < 2, i % 3,
                            indexed ? index : NULL, indexed ? index_size : 0, indexed ? EVERY : 0, out);
        sum = add(sum, (const uint8_t *)&code, sizeof code);
        if (code == FIC_OK) {
            sum = add(sum, out, (int64_t)side * side * 3);
            ++*decoded;
        }
    }
    int32_t code = fic_read_plain_image(decoder, jpeg, size, info.width, info.height, whole);
    sum = add(sum, (const uint8_t *)&code, sizeof code);
    if (code == FIC_OK) {
        int64_t written = fic_write_jpeg(decoder, whole, info.width, info.height, 80, file, sizeof file, EVERY, index,
                                         &(int64_t){sizeof index});
        sum = add(add(sum, whole, (int64_t)info.width * info.height * 3), file, written);
        int32_t half_w = info.width / 2 + 1, half_h = info.height / 2 + 1;
        code = fic_shrink_area(decoder, whole, info.width, info.height, half_w, half_h, file);
        sum = add(sum, file, code == FIC_OK ? (int64_t)half_w * half_h * 3 : 0);
    }
    /* The file's bytes once more, as pixels. */
    int32_t width = 37, height = (int32_t)(size / 3 / width), side = 29;
    for (int32_t resize = 0; resize < 3; resize++) {
        code = fic_resize_crop(decoder, jpeg, width, height, 0, 0, width, height, side, side, 0, resize, out);
        sum = add(add(sum, (const uint8_t *)&code, sizeof code), out, (int64_t)side * side * 3);
    }
    return sum;
}

int main(int argc, char **argv)
{
    fic_decoder *decoder = fic_decoder_new();
    if (argc < 2 || !decoder || fic_set_simd(decoder, atoi(argv[1])) != atoi(argv[1]))
        return 1;
    for (int i = 2; i < argc; i++) {
        static uint8_t jpeg[1 << 20];
        FILE *file = fopen(argv[i], "rb");
        if (!file)
            return 1;
        int64_t size = (int64_t)fread(jpeg, 1, sizeof jpeg, file);
        fclose(file);
        int decoded = 0;
        uint64_t sum = sum_of_crops(decoder, jpeg, size, &decoded);
        printf("%016" PRIx64 ":%d\n", sum, decoded);
    }
    fic_decoder_free(decoder);
    return 0;
}
