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


def encode_ones_at_block_ends():
    """64 x 8 pixels of grey with Huffman tables in which an end of block ends in ones, and the next block begins so."""
    dc_codes = bytes([0xFF, 0xC4, 0, 27, 0x00, *[1] * 8, *[0] * 8, 1, 2, 3, 4, 5, 6, 7, 0])  # category 0: 11111110
    ac_codes = bytes([0xFF, 0xC4, 0, 23, 0x10, 0, 0, 4, *[0] * 13, 1, 2, 3, 0])  # end of block: 011
    frame = bytes([0xFF, 0xC0, 0, 11, 8, 0, 8, 0, 64, 1, 1, 0x11, 0])
    scan = bytes([0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 63, 0])
    data = int("11111110011" * 8, 2).to_bytes(11, "big").replace(b"\xff", b"\xff\0")
    return b"\xff\xd8\xff\xdb\0\x43\0" + b"\1" * 64 + dc_codes + ac_codes + frame + scan + data + b"\xff\xd9"


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
