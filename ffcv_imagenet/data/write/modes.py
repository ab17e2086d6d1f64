"""The ways to store images, and the options of each; plain values, so that help texts need nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from ffcv_imagenet.options import Integer, Real, Switch, option
from ffcv_imagenet.variants import Variants


@dataclass(frozen=True)
class Raw:
    """Pixels, uncompressed."""


@dataclass(frozen=True)
class Jpg:
    """JPEG."""

    jpeg_quality: int = option(Integer(1, 100), "JPEG quality", 90)
    reencode: bool = option(Switch(), "0: keep JPEG files that are small enough byte for byte", True)


@dataclass(frozen=True)
class Smart:
    """JPEG where raw takes much more."""

    smart_threshold: float = option(Real(0), "JPEG where raw takes more than this many times its bytes", 2.0)
    jpeg_quality: int = option(Integer(1, 100), "JPEG quality", 90)


@dataclass(frozen=True)
class Proportion:
    """A share as JPEG, the rest raw."""

    compress_probability: float = option(Real(0, 1), "share of JPEG images", 0.5)
    jpeg_quality: int = option(Integer(1, 100), "JPEG quality", 90)
    reencode: bool = option(Switch(), "0: keep JPEG files that are small enough byte for byte", True)


#: Ways to store images by ``write.mode``.
MODES: Variants[object] = Variants("write.mode", {"raw": Raw, "jpg": Jpg, "smart": Smart, "proportion": Proportion})
