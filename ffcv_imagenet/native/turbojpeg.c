#include <turbojpeg.h>

#include "decoder.h"

int32_t fic_turbojpeg_open(fic_decoder *decoder, const uint8_t *jpeg, int64_t size, fic_turbojpeg_header *header)
{
    if (!decoder->turbojpeg)
        decoder->turbojpeg = tjInitDecompress();
    if (!decoder->turbojpeg)
        return FIC_ERROR_MEMORY;
    int width = 0, height = 0, subsampling = 0, colourspace = 0;
    if (tjDecompressHeader3(decoder->turbojpeg, jpeg, (unsigned long)size, &width, &height, &subsampling, &colourspace))
        return FIC_ERROR_UNSUPPORTED;
    if (width < 1 || height < 1) /* tables without an image: neither set nor refused */
        return FIC_ERROR_UNSUPPORTED;
    *header = (fic_turbojpeg_header){width, height, subsampling, colourspace};
    return FIC_OK;
}

int32_t fic_turbojpeg_done(fic_decoder *decoder, int32_t code)
{
    fic_turbojpeg_free(decoder);
    return code;
}

void fic_turbojpeg_free(fic_decoder *decoder)
{
    if (decoder->turbojpeg)
        tjDestroy(decoder->turbojpeg);
    decoder->turbojpeg = NULL;
}
