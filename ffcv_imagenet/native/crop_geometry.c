/* Which blocks and MCUs of a JPEG a crop needs. See decoder.h. */
#include "decoder.h"

int32_t fic_valid_crop(int32_t width, int32_t height, const fic_crop *crop)
{
    return width > 0 && height > 0 && width <= 65535 && height <= 65535 && crop->w > 0 && crop->h > 0 && crop->x >= 0 &&
           crop->y >= 0 && crop->w <= width && crop->h <= height && crop->x <= width - crop->w &&
           crop->y <= height - crop->h && crop->out_w > 0 && crop->out_h > 0 && crop->out_w <= FIC_MAX_OUTPUT &&
           crop->out_h <= FIC_MAX_OUTPUT && crop->resize >= 0 && crop->resize < FIC_NUM_RESIZES;
}

void fic_layout_planes(const fic_jpeg_header *header, const fic_crop *crop, fic_plane plane[3])
{
    for (int32_t c = 0; c < header->num_components; c++) {
        fic_factors pixels = fic_pixels_per_sample(header, c);
        int32_t width = (header->width + pixels.x - 1) / pixels.x, height = (header->height + pixels.y - 1) / pixels.y;
        int32_t first, last;
        fic_filter_reach(crop->x, crop->w, pixels.x, width, &first, &last);
        plane[c].block_x = first / 8;
        plane[c].blocks_w = last / 8 + 1 - plane[c].block_x;
        fic_filter_reach(crop->y, crop->h, pixels.y, height, &first, &last);
        plane[c].block_y = first / 8;
        plane[c].blocks_h = last / 8 + 1 - plane[c].block_y;
        plane[c].stride = (8 * plane[c].blocks_w + 31) / 32 * 32;
    }
}

fic_mcu_range fic_needed_mcus(const fic_jpeg_header *header, const fic_plane plane[3])
{
    fic_mcu_range range = {INT32_MAX, 0, INT32_MAX, 0};
    for (int32_t c = 0; c < header->num_components; c++) {
        fic_factors blocks = fic_blocks_per_mcu(header, c);
        int32_t left = plane[c].block_x / blocks.x, right = (plane[c].block_x + plane[c].blocks_w - 1) / blocks.x + 1;
        int32_t top = plane[c].block_y / blocks.y, bottom = (plane[c].block_y + plane[c].blocks_h - 1) / blocks.y + 1;
        range.left = left < range.left ? left : range.left;
        range.right = right > range.right ? right : range.right;
        range.top = top < range.top ? top : range.top;
        range.bottom = bottom > range.bottom ? bottom : range.bottom;
    }
    return range;
}

void fic_filter_keys(const fic_crop *crop, int32_t width, int32_t height, fic_factors pixels, const int32_t origin[2],
                     fic_filter_key *across, fic_filter_key *down)
{
    *across = (fic_filter_key){
        .crop = crop->x,
        .crop_size = crop->w,
        .out_size = crop->out_w,
        .subsampling = pixels.x,
        .plane_size = (width + pixels.x - 1) / pixels.x,
        .origin = origin[0],
        .mirror = crop->flip,
        .filter = crop->resize,
    };
    *down = (fic_filter_key){
        .crop = crop->y,
        .crop_size = crop->h,
        .out_size = crop->out_h,
        .subsampling = pixels.y,
        .plane_size = (height + pixels.y - 1) / pixels.y,
        .origin = origin[1],
        .mirror = 0,
        .filter = crop->resize,
    };
}
