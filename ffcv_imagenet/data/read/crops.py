"""Crop boxes: what part of an image becomes the input.

A random crop is a pure function of (seed, epoch, sample index): counter-based random numbers without a generator's
state, so that workers, ranks and interruptions change nothing. numba compiles the functions; :func:`random_boxes` and
:func:`center_boxes` are called per batch.
"""

from __future__ import annotations

import numpy as np

from ffcv_imagenet.compiled import cached_njit

#: Crops are drawn at most this often before falling back to the centre (as in torchvision).
TRIES = 10

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


@cached_njit()
def mix(x):  # type: ignore[no-untyped-def]
    """Scramble 64 bits (the output function of SplitMix64: Steele, Lea, Flood, "Fast Splittable PRNGs", 2014)."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


@cached_njit()
def sample_key(seed, epoch, index):  # type: ignore[no-untyped-def]
    """The 64-bit key of a sample's random numbers."""
    key = mix(np.uint64(seed) + _GOLDEN)
    key = mix(key ^ (np.uint64(epoch) + _GOLDEN))
    return mix(key ^ (np.uint64(index) + _GOLDEN))


@cached_njit()
def _copy_key(seed, epoch, samples, repeats, i):  # type: ignore[no-untyped-def]
    """The key of a sample of a batch, or of a copy of it, which is as in an epoch far away."""
    copy = np.uint64(repeats[i]) if len(repeats) else np.uint64(0)
    return sample_key(seed, np.uint64(epoch) + (copy << np.uint64(32)), samples[i])


@cached_njit()
def uniform(key, draw):  # type: ignore[no-untyped-def]
    """The ``draw``-th random number of a key, uniform in [0, 1) with 53 bits."""
    bits = mix(key + np.uint64(draw + 1) * _GOLDEN)
    return (bits >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@cached_njit()
def random_resized_crop(key, height, width, min_area, max_area, min_ratio, max_ratio):  # type: ignore[no-untyped-def]
    """A random box ``(top, left, height, width)`` in an image, distributed as torchvision's RandomResizedCrop.

    Area uniform in ``[min_area, max_area]`` of the image's, aspect ratio log-uniform in ``[min_ratio, max_ratio]``; ten
    tries, then the largest centred box of an allowed ratio.
    """
    height, width = np.int64(height), np.int64(width)
    log_min, log_max = np.log(min_ratio), np.log(max_ratio)
    for attempt in range(TRIES):
        area = height * width * (min_area + (max_area - min_area) * uniform(key, 4 * attempt))
        ratio = np.exp(log_min + (log_max - log_min) * uniform(key, 4 * attempt + 1))
        w = np.int64(round(np.sqrt(area * ratio)))
        h = np.int64(round(np.sqrt(area / ratio)))
        if 0 < w <= width and 0 < h <= height:
            top = np.int64(uniform(key, 4 * attempt + 2) * (height - h + 1))
            left = np.int64(uniform(key, 4 * attempt + 3) * (width - w + 1))
            return top, left, h, w
    if width < min_ratio * height:
        w, h = width, max(np.int64(1), np.int64(round(width / min_ratio)))
    elif width > max_ratio * height:
        w, h = max(np.int64(1), np.int64(round(height * max_ratio))), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@cached_njit()
def random_flip(key):  # type: ignore[no-untyped-def]
    """Whether a sample is mirrored: half of the time."""
    return uniform(key, 4 * TRIES) < 0.5


@cached_njit()
def center_crop(height, width, ratio):  # type: ignore[no-untyped-def]
    """The centred square box ``(top, left, side, side)`` with side ``ratio`` x the shorter one (as FFCV's)."""
    side = max(np.int64(1), np.int64(ratio * min(height, width)))
    return (np.int64(height) - side) // 2, (np.int64(width) - side) // 2, side, side


@cached_njit(nogil=True)
def random_boxes(samples, repeats, metadata, seed, epoch, area, ratio, flip, boxes):  # type: ignore[no-untyped-def]
    """Fill ``boxes [B, 5] int32`` with (top, left, height, width, flip) of random crops.

    Args:
        samples: [B] indices in the file.
        repeats: [B] numbers of copies of a sample, each of which has a crop of its own; empty: all 0.
        metadata: FFCV's records of all images, with ``height`` and ``width``.
        seed: of the run.
        epoch: number of the epoch.
        area: smallest and largest crop as a share of the image's area.
        ratio: smallest and largest aspect ratio.
        flip: mirror half of the samples.
        boxes: the output.
    """
    for i in range(len(samples)):
        field = metadata[samples[i]]
        key = _copy_key(seed, epoch, samples, repeats, i)
        box = random_resized_crop(key, field["height"], field["width"], area[0], area[1], ratio[0], ratio[1])
        for j in range(4):
            boxes[i, j] = box[j]
        boxes[i, 4] = flip and random_flip(key)


@cached_njit()
def random_part(key, height, width, share, squash):  # type: ignore[no-untyped-def]
    """A box ``(top, left, height, width)`` anywhere in an image, its sides ``share`` times the image's.

    Unless ``squash``, both sides are that of the shorter one.
    """
    height, width = np.int64(height), np.int64(width)
    shorter = min(height, width)
    h = max(np.int64(1), np.int64(round(share * (height if squash else shorter))))
    w = max(np.int64(1), np.int64(round(share * (width if squash else shorter))))
    return np.int64(uniform(key, 0) * (height - h + 1)), np.int64(uniform(key, 1) * (width - w + 1)), h, w


@cached_njit(nogil=True)
def random_part_boxes(samples, repeats, metadata, seed, epoch, share, squash, flip, boxes):  # type: ignore[no-untyped-def]
    """Fill ``boxes [B, 5] int32`` with (top, left, height, width, flip) of random crops; see :func:`random_part`."""
    for i in range(len(samples)):
        field = metadata[samples[i]]
        key = _copy_key(seed, epoch, samples, repeats, i)
        box = random_part(key, field["height"], field["width"], share, squash)
        for j in range(4):
            boxes[i, j] = box[j]
        boxes[i, 4] = flip and random_flip(key)


@cached_njit(nogil=True)
def center_boxes(samples, metadata, ratio, boxes):  # type: ignore[no-untyped-def]
    """Fill ``boxes [B, 5] int32`` with (top, left, height, width, 0) of centre crops; see :func:`center_crop`."""
    for i in range(len(samples)):
        field = metadata[samples[i]]
        box = center_crop(field["height"], field["width"], ratio)
        for j in range(4):
            boxes[i, j] = box[j]
        boxes[i, 4] = 0
