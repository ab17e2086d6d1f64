/* Whole images, for writing data sets: libturbojpeg with the accurate DCT, which gives Pillow's pixels and OpenCV's
 * files. */
#include <turbojpeg.h>

#include "decoder.h"

int32_t fic_read_image(const uint8_t *jpeg, int64_t jpeg_size, int32_t width, int32_t height, uint8_t *out)
{
    if (!jpeg || !out || jpeg_size < 1)
        return FIC_ERROR_ARGUMENT;
    fic_turbojpeg_image image;
    int32_t code = fic_turbojpeg_open(jpeg, jpeg_size, &image);
    if (code != FIC_OK)
        return code;
    if (image.colourspace == TJCS_CMYK || image.colourspace == TJCS_YCCK)
        code = FIC_ERROR_UNSUPPORTED;
    else if (image.width != width || image.height != height)
        code = FIC_ERROR_SIZE_MISMATCH;
    else if (tjDecompress2(image.handle, jpeg, (unsigned long)jpeg_size, out, width, 0, height, TJPF_RGB,
                           TJFLAG_ACCURATEDCT))
        code = FIC_ERROR_FALLBACK;
    tjDestroy(image.handle);
    return code;
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
