/* Resizes a crop of decoded planes or of an uncompressed image. See decoder.h and fic.h. */
#include "decoder.h"

int32_t fic_resample_crop(fic_decoder *decoder, const fic_crop *crop, const fic_planes *planes, uint8_t *out)
{
    fic_resampling task;
    task.num_components = planes->num_components;
    task.colour = planes->colour;
    for (int32_t c = 0; c < planes->num_components; c++) {
        int32_t chroma = c > 0;
        fic_factors pixels = chroma ? planes->subsampling : (fic_factors){1, 1};
        fic_filter *horizontal = &decoder->horizontal[chroma], *vertical = &decoder->vertical[chroma];
        fic_filter_key across, down;
        fic_filter_keys(crop, planes->width, planes->height, pixels, planes->origin[c], &across, &down);
        int32_t code = fic_filter_build(horizontal, &across, decoder->simd);
        if (code == FIC_OK)
            code = fic_filter_build(vertical, &down, decoder->simd);
        if (code != FIC_OK)
            return code;
        task.source[c] = planes->source[c];
        task.horizontal[c] = horizontal;
        task.vertical[c] = vertical;
    }
    return fic_resample(&task, &decoder->scratch, decoder->simd, out);
}

int32_t fic_resize_pixels(fic_decoder *decoder, const uint8_t *rgb, int32_t width, int32_t height, const fic_crop *crop,
                          uint8_t *out)
{
    int32_t left = crop->x & ~1, top = crop->y & ~1; /* filters start at even samples */
    int32_t plane_w = crop->x + crop->w - left, plane_h = crop->y + crop->h - top;
    size_t stride = (size_t)(plane_w + 31) / 32 * 32, size = stride * (size_t)plane_h;
    uint8_t *memory = fic_buffer_reserve(&decoder->planes, 3 * size);
    if (!memory)
        return FIC_ERROR_MEMORY;
    for (int32_t y = 0; y < plane_h; y++) {
        uint8_t *to = memory + (size_t)y * stride;
        fic_split_rgb(rgb + ((int64_t)(top + y) * width + left) * 3, plane_w, to, to + size, to + 2 * size,
                      decoder->simd);
    }
    fic_planes planes = {width, height, 3, FIC_COLOUR_RGB, {1, 1}, {{0}}, {{0}}};
    for (int32_t c = 0; c < 3; c++) {
        planes.source[c] = (fic_source){memory + (size_t)c * size, (int32_t)stride, plane_w, plane_h};
        planes.origin[c][0] = left;
        planes.origin[c][1] = top;
    }
    return fic_resample_crop(decoder, crop, &planes, out);
}

int32_t fic_resize_crop(fic_decoder *decoder, const uint8_t *rgb, int32_t width, int32_t height, int32_t crop_x,
                        int32_t crop_y, int32_t crop_w, int32_t crop_h, int32_t out_w, int32_t out_h, int32_t flip,
                        int32_t resize, uint8_t *out)
{
    fic_crop crop = {crop_x, crop_y, crop_w, crop_h, out_w, out_h, flip != 0, resize};
    if (!decoder || !rgb || !out || !fic_valid_crop(width, height, &crop))
        return FIC_ERROR_ARGUMENT;
    return fic_resize_pixels(decoder, rgb, width, height, &crop, out);
}
