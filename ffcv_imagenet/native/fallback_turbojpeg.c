#include <turbojpeg.h>

#include "decoder.h"

static int32_t decode_planes(fic_decoder *decoder, const fic_turbojpeg_image *image, const uint8_t *jpeg, int64_t size,
                             const fic_crop *crop, uint8_t *out)
{
    int subsampling = image->subsampling;
    int32_t width = decoder->header.width, height = decoder->header.height;
    int32_t components = subsampling == TJSAMP_GRAY ? 1 : 3;
    int32_t h = subsampling == TJSAMP_422 || subsampling == TJSAMP_420 ? 2 : 1;
    int32_t v = subsampling == TJSAMP_440 || subsampling == TJSAMP_420 ? 2 : 1;
    size_t offset[3] = {0, 0, 0}, total = 0;
    int strides[3] = {0, 0, 0};
    int32_t origin[3][2] = {{0, 0}, {0, 0}, {0, 0}};
    fic_source source[3];
    for (int32_t c = 0; c < components; c++) {
        source[c].width = tjPlaneWidth(c, width, subsampling);
        source[c].height = tjPlaneHeight(c, height, subsampling);
        source[c].stride = strides[c] = (source[c].width + 31) / 32 * 32;
        offset[c] = total;
        total += (size_t)source[c].stride * (size_t)source[c].height;
    }
    uint8_t *memory = fic_buffer_reserve(&decoder->fallback, total);
    if (!memory)
        return FIC_ERROR_MEMORY;
    unsigned char *planes[3] = {NULL, NULL, NULL};
    for (int32_t c = 0; c < components; c++)
        source[c].samples = planes[c] = memory + offset[c];
    if (tjDecompressToYUVPlanes(image->handle, jpeg, (unsigned long)size, planes, width, strides, height,
                                TJFLAG_ACCURATEDCT))
        return FIC_ERROR_FALLBACK;
    enum fic_colour colour = components == 1 ? FIC_COLOUR_GREY : FIC_COLOUR_YCC;
    return fic_resample_crop(decoder, crop, width, height, components, colour, h, v, source,
                             (const int32_t(*)[2])origin, out);
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
    if (tjDecompress2(image->handle, jpeg, (unsigned long)size, pixels, width, 0, height,
                      cmyk ? TJPF_CMYK : TJPF_RGB, TJFLAG_ACCURATEDCT))
        return FIC_ERROR_FALLBACK;
    if (cmyk)
        cmyk_to_rgb(pixels, count);
    return fic_resize_crop(decoder, pixels, width, height, crop->x, crop->y, crop->w, crop->h, crop->out_w, crop->out_h,
                           crop->flip, crop->resize, out);
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
    else if (grey || (image.colourspace == TJCS_YCbCr && image.subsampling != TJSAMP_GRAY &&
                      image.subsampling != TJSAMP_411))
        code = decode_planes(decoder, &image, jpeg, size, crop, out);
    else
        code = decode_pixels(decoder, &image, jpeg, size, crop, out);
    tjDestroy(image.handle);
    return code;
}
