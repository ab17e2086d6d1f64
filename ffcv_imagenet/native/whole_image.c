/* Whole images of any kind, for writing data sets: libturbojpeg with the accurate DCT, which gives Pillow's pixels. */
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
