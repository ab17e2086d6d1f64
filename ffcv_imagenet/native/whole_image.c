/* Whole images, for writing data sets: libturbojpeg with the accurate DCT, which gives Pillow's pixels and OpenCV's
 * files. */
#include <turbojpeg.h>

#include "decoder.h"

static int32_t read_image(fic_decoder *decoder, const uint8_t *jpeg, int64_t jpeg_size, uint8_t *out, int64_t capacity,
                          int32_t *out_size)
{
    fic_turbojpeg_header header;
    int32_t code = fic_turbojpeg_open(decoder, jpeg, jpeg_size, &header);
    if (code != FIC_OK)
        return code;
    if (header.colourspace == TJCS_CMYK || header.colourspace == TJCS_YCCK)
        return FIC_ERROR_UNSUPPORTED;
    out_size[0] = header.width;
    out_size[1] = header.height;
    if (!out)
        return FIC_OK;
    if (capacity < (int64_t)header.width * header.height * 3)
        return FIC_ERROR_CAPACITY;
    if (tjDecompress2(decoder->turbojpeg, jpeg, (unsigned long)jpeg_size, out, header.width, 0, header.height, TJPF_RGB,
                      TJFLAG_ACCURATEDCT))
        return FIC_ERROR_FALLBACK;
    return FIC_OK;
}

int32_t fic_read_image(fic_decoder *decoder, const uint8_t *jpeg, int64_t jpeg_size, uint8_t *out, int64_t capacity,
                       int32_t *out_size)
{
    if (!decoder || !jpeg || !out_size || jpeg_size < 1)
        return FIC_ERROR_ARGUMENT;
    return fic_turbojpeg_done(decoder, read_image(decoder, jpeg, jpeg_size, out, capacity, out_size));
}

int64_t fic_write_jpeg(fic_decoder *decoder, const uint8_t *rgb, int32_t width, int32_t height, int32_t quality,
                       uint8_t *out, int64_t capacity)
{
    if (!decoder || !rgb || width < 1 || height < 1 || quality < 1 || quality > 100)
        return FIC_ERROR_ARGUMENT;
    unsigned long size = tjBufSize(width, height, TJSAMP_420);
    if (size == (unsigned long)-1)
        return FIC_ERROR_ARGUMENT;
    if (!out)
        return (int64_t)size;
    if (capacity < (int64_t)size)
        return FIC_ERROR_CAPACITY;
    if (!decoder->compressor)
        decoder->compressor = tjInitCompress();
    if (!decoder->compressor)
        return FIC_ERROR_MEMORY;
    if (tjCompress2(decoder->compressor, rgb, width, 0, height, TJPF_RGB, &out, &size, TJSAMP_420, quality,
                    TJFLAG_ACCURATEDCT | TJFLAG_NOREALLOC))
        return FIC_ERROR_FALLBACK;
    return (int64_t)size;
}

void fic_whole_image_free(fic_decoder *decoder)
{
    if (decoder->compressor)
        tjDestroy(decoder->compressor);
}
