"""What part of an image a training sees: the kinds of ``data.crop`` with their options. Known without numba."""

from __future__ import annotations

from dataclasses import dataclass

from ffcv_imagenet.options import Integer, Numbers, Real, option
from ffcv_imagenet.variants import Variants


@dataclass(frozen=True)
class Crop:
    """A kind of crop; its fields are its options."""


@dataclass(frozen=True)
class RandomResized(Crop):
    """A box of random area and aspect ratio, as torchvision's RandomResizedCrop."""

    min_crop_area: float = option(Real(0.0001, 1), "smallest training crop as a share of the image's area", 0.08)
    max_crop_area: float = option(Real(0.0001, 1), "largest training crop as a share of the image's area", 1.0)
    crop_aspect: tuple[float, float] = option(
        Numbers(2, 0.01, 100), "smallest and largest width of a training crop per height", (3 / 4, 4 / 3)
    )

    def __post_init__(self) -> None:
        """Check what involves several options; raises ValueError."""
        if self.min_crop_area > self.max_crop_area:
            raise ValueError(
                f"data.min_crop_area: got {self.min_crop_area}, allowed is at most "
                f"data.max_crop_area={self.max_crop_area}"
            )
        if self.crop_aspect[0] > self.crop_aspect[1]:
            raise ValueError(f"data.crop_aspect: got {self.crop_aspect}, allowed is the smaller number first")


@dataclass(frozen=True)
class RandomSquare(Crop):
    """A square of constant size at random, as after torchvision's Resize(256) its RandomCrop(224)."""

    crop_share: float = option(
        Real(0.01, 1), "side of a training crop as a share of the image's shorter side (224 of 256: 0.875)", 0.875
    )


@dataclass(frozen=True)
class Squash(Crop):
    """A box with the image's aspect ratio at random, as after torchvision's Resize((256, 256)) its RandomCrop(224)."""

    crop_share: float = option(
        Real(0.01, 1), "sides of a training crop as a share of the image's (224 of 256: 0.875)", 0.875
    )


@dataclass(frozen=True)
class Padded(Crop):
    """The whole image, moved at random by up to ``padding`` pixels, as torchvision's RandomCrop(32, padding=4)."""

    padding: int = option(Integer(1, 256), "most pixels by which an image is moved, black next to it", 4)


#: All kinds by ``data.crop``.
CROPS: Variants[Crop] = Variants(
    "data.crop", {"random_resized": RandomResized, "random": RandomSquare, "squash": Squash, "padded": Padded}
)
