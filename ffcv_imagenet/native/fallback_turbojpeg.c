/* Decodes with libturbojpeg, in full, what this library does not decode itself. See decoder.h. */
#include <turbojpeg.h>

#include "decoder.h"

static int32_t decode_planes(fic_decoder *decoder, const fic_turbojpeg_image *image, const uint8_t *jpeg, int64_t size,
                             const fic_crop *crop, uint8_t *out)
{
    int subsampling = image->subsampling;
    int32_t width = decoder->header.width, height = decoder->header.height;
    fic_planes planes = {.width = width, .height = height}; /* whole: their origins are 0 */
    planes.num_components = subsampling == TJSAMP_GRAY ? 1 : 3;
    planes.colour = subsampling == TJSAMP_GRAY ? FIC_COLOUR_GREY : FIC_COLOUR_YCC;
    planes.subsampling.x = subsampling == TJSAMP_422 || subsampling == TJSAMP_420 ? 2 : 1;
    planes.subsampling.y = subsampling == TJSAMP_440 || subsampling == TJSAMP_420 ? 2 : 1;
    size_t offset[3] = {0, 0, 0}, total = 0;
    int strides[3] = {0, 0, 0};
    for (int32_t c = 0; c < planes.num_components; c++) {
        fic_source *source = &planes.source[c];
        source->width = tjPlaneWidth(c, width, subsampling);
        source->height = tjPlaneHeight(c, height, subsampling);
        source->stride = strides[c] = (source->width + 31) / 32 * 32;
        offset[c] = total;
        total += (size_t)source->stride * (size_t)source->height;
    }
    uint8_t *memory = fic_buffer_reserve(&decoder->fallback, total);
    if (!memory)
        return FIC_ERROR_MEMORY;
    unsigned char *samples[3] = {NULL, NULL, NULL};
    for (int32_t c = 0; c < planes.num_components; c++)
        planes.source[c].samples = samples[c] = memory + offset[c];
    if (tjDecompressToYUVPlanes(image->handle, jpeg, (unsigned long)size, samples, width, strides, height,
                                TJFLAG_ACCURATEDCT))
        return FIC_ERROR_FALLBACK;
    return fic_resample_crop(decoder, crop, &planes, out);
}

/* a * b / 255, rounded */
static uint32_t multiply_255(uint32_t a, uint32_t b)
{
    uint32_t product = a * b + 128;
    return (product + (product >> 8)) >> 8;
}

/* In place; CMYK as Adobe writes it, inverted: what is stored is 255 minus the amount of ink. Black ink darkens what
 * the colours leave, as Pillow converts. */
static void cmyk_to_rgb(uint8_t *pixels, size_t count)
{
    const uint8_t *from = pixels;
    for (size_t i = 0; i < count; i++, from += 4, pixels += 3) {
        uint32_t light = from[3];
        for (int32_t c = 0; c < 3; c++)
            pixels[c] = (uint8_t)(light - multiply_255(255u - from[c], light));
    }
}

static int32_t decode_pixels(fic_decoder *decoder, const fic_turbojpeg_image *image, const uint8_t *jpeg, int64_t size,
                             const fic_crop *crop, uint8_t *out)
{
    int cmyk = image->colourspace == TJCS_CMYK || image->colourspace == TJCS_YCCK;
    int32_t width = decoder->header.width, height = decoder->header.height;
    size_t count = (size_t)width * (size_t)height;
    uint8_t *pixels = fic_buffer_reserve(&decoder->fallback, count * (cmyk ? 4 : 3));
    if (!pixels)
        return FIC_ERROR_MEMORY;
    if (tjDecompress2(image->handle, jpeg, (unsigned long)size, pixels, width, 0, height, cmyk ? TJPF_CMYK : TJPF_RGB,
                      TJFLAG_ACCURATEDCT))
        return FIC_ERROR_FALLBACK;
    if (cmyk)
        cmyk_to_rgb(pixels, count);
    return fic_resize_pixels(decoder, pixels, width, height, crop, out);
}

int32_t fic_fallback_crop(fic_decoder *decoder, const uint8_t *jpeg, int64_t size, const fic_crop *crop, uint8_t *out)
{
    fic_turbojpeg_image image;
    int32_t code = fic_turbojpeg_open(jpeg, size, &image);
    if (code != FIC_OK)
        return code;
    int grey = image.colourspace == TJCS_GRAY && image.subsampling == TJSAMP_GRAY;
    if (image.width != decoder->header.width || image.height != decoder->header.height)
        code = FIC_ERROR_SIZE_MISMATCH;
    else if (grey ||
             (image.colourspace == TJCS_YCbCr && image.subsampling != TJSAMP_GRAY && image.subsampling != TJSAMP_411))
        code = decode_planes(decoder, &image, jpeg, size, crop, out);
    else
        code = decode_pixels(decoder, &image, jpeg, size, crop, out);
    tjDestroy(image.handle);
    return code;
}
