"""What torchvision's ImageFolder makes of an image file."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator

import numpy as np
from PIL import Image, UnidentifiedImageError

from ffcv_imagenet import native

# One limit for every format, with one text: open_image's. Pillow's own would come after it.
Image.MAX_IMAGE_PIXELS = None

_SPECIAL_FILES = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def read_file(path: str) -> bytes:
    """Content of a regular file; nothing else is opened, because a FIFO or a device may never answer.

    Raises:
        ValueError: it cannot be read; gives the reason.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 (once for each image, like the calls below)
        special = _SPECIAL_FILES.get(stat.S_IFMT(status.st_mode))
        if special is not None:
            raise ValueError(f"cannot be read: it is {special}, not a regular file")
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts = [os.read(descriptor, status.st_size + 1)]  # that it is the end shows in the one byte less
            while len(parts[-1]) not in (0, status.st_size):
                parts.append(os.read(descriptor, 1 << 20))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    return b"".join(parts) if len(parts) > 1 else parts[0]


def is_jpeg(content: bytes) -> bool:
    """Whether a file's content begins as a JPEG does."""
    return content.startswith(b"\xff\xd8")


def open_image(content: bytes, max_pixels: int) -> Image.Image:
    """An image whose header Pillow has read, but no pixels.

    Raises:
        ValueError: Pillow refuses it, or it has more than ``max_pixels`` pixels; gives the reason.
    """
    with _reasons():
        image = Image.open(io.BytesIO(content))
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise ValueError(
            f"its header says {image.width} x {image.height} pixels, allowed are {max_pixels} in all: if that is its "
            f"true size, give --write.max_pixels={pixels}"
        )
    return image


def decode_image(content: bytes, max_pixels: int) -> np.ndarray:
    """Pixels of an image file's content, [H, W, 3] uint8 RGB, exactly as torchvision's ImageFolder loads them.

    The content counts, not the file's extension; EXIF orientation is not applied.

    Raises:
        ValueError: it cannot be decoded, or has more than ``max_pixels`` pixels; gives the reason.
        MemoryError: there is not enough memory for it.
    """
    # The same pixels as Pillow's in less than half the time. What it refuses, damaged files too, Pillow decides about.
    if is_jpeg(content) and (pixels := native.read_plain_image(content, max_pixels)) is not None:
        return pixels
    image = open_image(content, max_pixels)
    if is_jpeg(content):
        with contextlib.suppress(ValueError):
            return native.read_image(content)
    with _reasons():
        return np.asarray(image.convert("RGB"))


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    """Whatever Pillow raises on a file's bytes as a ValueError of one line."""
    try:
        yield
    except UnidentifiedImageError:
        raise ValueError("not an image") from None
    except MemoryError:
        raise
    except Exception as error:  # on bad bytes Pillow raises almost anything: OSError, SyntaxError, struct.error, ...
        raise ValueError(" ".join((str(error) or type(error).__name__).split())) from error
