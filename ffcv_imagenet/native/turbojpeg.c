/* Opens a JPEG with libturbojpeg. See decoder.h. */
#include <turbojpeg.h>

#include "decoder.h"

int32_t fic_turbojpeg_open(const uint8_t *jpeg, int64_t size, fic_turbojpeg_image *image)
{
    *image = (fic_turbojpeg_image){.handle = tjInitDecompress()};
    if (!image->handle)
        return FIC_ERROR_MEMORY;
    /* Tables without an image are no error to it: then width and height stay 0, which is no image's size. */
    if (!tjDecompressHeader3(image->handle, jpeg, (unsigned long)size, &image->width, &image->height,
                             &image->subsampling, &image->colourspace))
        return FIC_OK;
    tjDestroy(image->handle);
    return FIC_ERROR_UNSUPPORTED;
}
