/*
 * The resizing filters along one axis, in integers: what resample.h describes, one output sample at a time.
 */
#ifndef FIC_FILTER_H
#define FIC_FILTER_H

#include "portable.h"

#define FIC_WEIGHT_BITS 14
#define FIC_CUBIC_BITS 20
#define FIC_CUBIC_INVERSE_BITS 40

/* What a pixel weighs for an output sample, by the distance of their centres. */
enum fic_resize {
    FIC_RESIZE_TRIANGLE, /* a triangle of half-width max(in / out, 1) */
    FIC_RESIZE_AREA,     /* the area that they share */
    FIC_RESIZE_BICUBIC,  /* cubic convolution of half-width 2 * max(in / out, 1), negative from half of that on */
    FIC_NUM_RESIZES
};

/* Compared as memory, as a whole: no padding, 8 fields of 32 bits. */
typedef struct {
    int32_t crop, crop_size; /* in pixels of the image */
    int32_t out_size;
    int32_t subsampling; /* pixels per sample: 1 or 2 */
    int32_t plane_size;  /* samples of the whole component */
    int32_t origin;      /* the component's sample that is the plane's first, even */
    int32_t mirror;
    int32_t filter; /* enum fic_resize */
} fic_filter_key;

/* The filter of one output sample, and how far its weights have been asked for. All coordinates are times 2 * out:
 * pixel j's centre is (2j + 1) * out, output i's (2i + 1) * in. Integers, so all machines compute the same weights. */
typedef struct {
    int32_t pixel;        /* of the crop, the first with a weight */
    int32_t distance;     /* of its centre from the output's */
    int32_t reach;        /* the half-width */
    int32_t whole;        /* area: the weight of a pixel that lies in the output's, or holds it */
    int64_t per_unit;     /* bicubic: 2^FIC_CUBIC_INVERSE_BITS / half the half-width */
    int64_t scale;        /* 2^60 / the sum of all weights */
    int32_t first, count; /* samples of the component */
    int32_t next;         /* number of the next sample */
    int32_t before, left; /* weights of the pixels 2a - 1 and 2a, where that sample is a */
    int64_t running;      /* sum of the weights before it */
    int32_t given;        /* the same, scaled and rounded */
} fic_filter_output;

/* Samples of the component that the crop's filter reaches: [*first, *last]. */
FIC_INLINE void fic_filter_reach(int32_t crop, int32_t crop_size, int32_t subsampling, int32_t plane_size,
                                 int32_t *first, int32_t *last)
{
    *first = crop;
    *last = crop + crop_size - 1;
    if (subsampling == 2) {
        *first = *first > 0 ? (*first - 1) >> 1 : 0;
        *last = (*last + 1) >> 1;
    }
    if (*last > plane_size - 1)
        *last = plane_size - 1;
}

/* Half the filter's width: pixels nearer than that to the output's centre have a weight. */
FIC_INLINE int32_t fic_filter_half_width(const fic_filter_key *key)
{
    int32_t in = key->crop_size, out = key->out_size, larger = in > out ? in : out;
    return key->filter == FIC_RESIZE_AREA ? in + out : key->filter == FIC_RESIZE_BICUBIC ? 4 * larger : 2 * larger;
}

/* The most pixels that a filter of these sizes reaches, and the most samples. */
FIC_INLINE int32_t fic_filter_pixels(const fic_filter_key *key)
{
    return fic_filter_half_width(key) / key->out_size + 2;
}

FIC_INLINE int32_t fic_filter_taps(const fic_filter_key *key)
{
    return key->subsampling == 2 ? fic_filter_pixels(key) / 2 + 3 : fic_filter_pixels(key);
}

/* Keys' cubic convolution with a = -1/2, as Pillow and torch have it, at distance / (half the half-width): a weight
 * with FIC_CUBIC_BITS + 1 fractional bits. */
FIC_INLINE int32_t fic_cubic_weight(int32_t distance, int64_t per_unit)
{
    const int64_t one = (int64_t)1 << FIC_CUBIC_BITS;
    int64_t t = (distance * per_unit) >> (FIC_CUBIC_INVERSE_BITS - FIC_CUBIC_BITS), w;
    if (t < one) {
        w = (3 * t - 5 * one) * t >> FIC_CUBIC_BITS;
        return (int32_t)((w * t >> FIC_CUBIC_BITS) + 2 * one);
    }
    w = ((5 * one - t) * t >> FIC_CUBIC_BITS) - 8 * one;
    return (int32_t)((w * t >> FIC_CUBIC_BITS) + 4 * one);
}

/* The weight, not yet scaled, of the pixel `number` pixels right of the first. Near the filter 32 bits suffice. */
FIC_INLINE int32_t fic_pixel_weight(const fic_filter_key *key, const fic_filter_output *output, int32_t number)
{
    int32_t distance = output->distance + 2 * number * key->out_size;
    distance = distance < 0 ? -distance : distance;
    if (distance >= output->reach || (uint32_t)(output->pixel + number) >= (uint32_t)key->crop_size)
        return 0;
    int32_t weight = output->reach - distance;
    if (key->filter == FIC_RESIZE_AREA)
        return weight < output->whole ? weight : output->whole;
    return key->filter == FIC_RESIZE_BICUBIC ? fic_cubic_weight(distance, output->per_unit) : weight;
}

/* Begin with output sample `number`. No pixel before `from` has a weight: the one before's first pixel, or 0. `pixels`:
 * of fic_filter_pixels. */
FIC_INLINE fic_filter_output fic_filter_begin(const fic_filter_key *key, int32_t number, int32_t from, int32_t pixels)
{
    int64_t in = key->crop_size, out = key->out_size, centre = (2 * (int64_t)number + 1) * in, sum = 0;
    fic_filter_output output;
    output.reach = fic_filter_half_width(key);
    output.whole = (int32_t)(2 * (in < out ? in : out));
    output.per_unit = ((int64_t)1 << FIC_CUBIC_INVERSE_BITS) / (output.reach / 2);
    while ((2 * (int64_t)from + 1) * out <= centre - output.reach)
        from++;
    output.pixel = from;
    output.distance = (int32_t)((2 * (int64_t)from + 1) * out - centre);
    int32_t count = 0, last;
    for (int32_t i = 0; i < pixels; i++) {
        sum += fic_pixel_weight(key, &output, i);
        int32_t distance = output.distance + 2 * i * key->out_size;
        count += distance < output.reach && from + i < key->crop_size;
    }
    fic_filter_reach(key->crop + from, count, key->subsampling, key->plane_size, &output.first, &last);
    output.count = last - output.first + 1;
    output.scale = ((int64_t)1 << 60) / (key->subsampling == 2 ? 4 * sum : sum);
    output.next = 0;
    output.before = output.left = 0;
    if (key->subsampling == 2) {
        int32_t right = 2 * output.first - key->crop - from;
        output.before = fic_pixel_weight(key, &output, right - 1);
        output.left = fic_pixel_weight(key, &output, right);
    }
    output.running = output.given = 0;
    return output;
}

/*
 * The weight of the next sample; 0 after the last one. Sample a of a component with half the resolution is the nearest
 * of pixels 2a and 2a + 1, and the next nearest of 2a - 1 and 2a + 2; beyond the component's ends its last sample is
 * repeated. Rounding the running sum makes the weights add up to 2^FIC_WEIGHT_BITS, however many there are.
 */
FIC_INLINE int32_t fic_filter_next(const fic_filter_key *key, fic_filter_output *output)
{
    int32_t number = output->next++, sample = output->first + number;
    if (key->subsampling == 1) {
        output->running += fic_pixel_weight(key, output, number);
    } else {
        int32_t pixel = 2 * sample - key->crop - output->pixel;
        int32_t right = fic_pixel_weight(key, output, pixel + 1);
        int32_t after = fic_pixel_weight(key, output, pixel + 2);
        int32_t weight = 3 * (output->left + right) + output->before + after;
        weight += sample == 0 ? output->left : 0;
        weight += sample == key->plane_size - 1 ? right : 0;
        output->running += number < output->count ? weight : 0;
        output->before = right;
        output->left = after;
    }
    int64_t half = (int64_t)1 << (59 - FIC_WEIGHT_BITS);
    int32_t given = output->given;
    output->given = (int32_t)((output->running * output->scale + half) >> (60 - FIC_WEIGHT_BITS));
    return output->given - given;
}

#endif
