"""Pictures and JPEG files that the native decoder's tests draw themselves."""

import io
import math
from functools import lru_cache

import numpy as np
from PIL import Image

SUBSAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def waves(width, height):
    """Smooth, coloured, with hard edges."""
    y, x = np.mgrid[:height, :width].astype(float)
    channels = [127 + 90 * np.sin(x / 9 + y / 31), 127 + 90 * np.cos(y / 7), 255 * ((x // 12 + y // 17) % 2)]
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)


@lru_cache
def photographs():
    from sklearn.datasets import load_sample_images

    return load_sample_images().images


def encode(pixels, mode="RGB", subsampling="4:2:0", quality=90, **options):
    """JPEG bytes by Pillow."""
    image = Image.fromarray(pixels).convert(mode)
    buffer = io.BytesIO()
    if mode in ("RGB", "YCbCr"):
        options["subsampling"] = SUBSAMPLINGS[subsampling]
    image.save(buffer, "JPEG", quality=quality, **options)
    return buffer.getvalue()


def encode_440(pixels, quality=90):
    """Pillow cannot write 4:4:0, OpenCV can."""
    import cv2

    parameters = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    ]
    return cv2.imencode(".jpg", pixels[..., ::-1], parameters)[1].tobytes()


def pillow_crop(jpeg, box, out, flip=False):
    """The reference: full decode, crop, antialiased bilinear resize."""
    x, y, w, h = box
    image = Image.open(io.BytesIO(jpeg)).convert("RGB").crop((x, y, x + w, y + h)).resize(out, Image.BILINEAR)
    pixels = np.asarray(image)
    return pixels[:, ::-1] if flip else pixels


def psnr(a, b):
    error = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def size_of(jpeg):
    return Image.open(io.BytesIO(jpeg)).size


def random_box(rng, width, height):
    w, h = rng.integers(1, width + 1), rng.integers(1, height + 1)
    return int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1)), int(w), int(h)


def segment(jpeg, marker):
    """(start, end) of the first marker segment of this kind, start at its 0xff."""
    at = 2
    while True:
        assert jpeg[at] == 0xFF
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at + 1] == marker:
            return at, end
        at = end
