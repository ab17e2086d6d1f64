"""What every source offers: the images of one split with their labels, in the order of the unpacked folder."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ffcv_imagenet.names import shown

#: What torchvision's ImageFolder takes for an image, by the end of its name in lower case.
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """One split of a data set.

    The order of the samples is that of torchvision's ImageFolder on the unpacked folder ``<class>/**/<image>``: by
    class, folder and name. So every source of the same images gives the same .beton.

    Attributes:
        format: one of :data:`formats.FORMATS`.
        place: the split as messages name it: a folder or an archive.
        name: of the whole data set, for the manifest.
        classes: class names; a label is an index into them.
        files: [N] each image as ``<class>/<image>``.
        labels: [N] int64, in ``0 .. len(classes) - 1``.
        digest: hash of the class names and of the names and sizes of all files. Two listings with the same
            digest hold the same data set, short of an edit that keeps a file's size.
        class_names: what people call the classes, in their order, where the source tells; else empty.
        repeated: folders that are left out, because they are links to one that is read already.
        damage: what of the source cannot be listed at all, with the reason.
    """

    format: str
    place: str
    name: str
    classes: tuple[str, ...]
    files: Sequence[str]
    labels: np.ndarray
    digest: str
    class_names: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    damage: Mapping[str, str] = field(default_factory=dict)

    @abstractmethod
    def read(self, number: int) -> bytes:
        """Content of the image file of sample ``number``; any number of threads may call it.

        Raises:
            ValueError: it cannot be read; gives the reason.
        """

    @abstractmethod
    def where(self, number: int) -> str:
        """The file of sample ``number`` as messages name it: its path, or its archive and its name there."""


def listing_digest(classes: Sequence[str], files: Iterable[tuple[str, int]]) -> str:
    """Hash of the class names and of the names (``<class>/<image>``) and sizes of all files, hexadecimal."""
    digest = hashlib.blake2b(repr(tuple(classes)).encode(), digest_size=16)
    for file in files:
        digest.update(repr(file).encode())
    return digest.hexdigest()


def class_difference(got: Sequence[str], expected: Sequence[str]) -> str:
    """How the classes of a split differ from those of train, in words."""
    parts = []
    for what, names in (("missing", set(expected) - set(got)), ("not in train", set(got) - set(expected))):
        if names:
            some = ", ".join(shown(name) for name in sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
            parts.append(f"{len(names)} {what} ({some})")
    return "; ".join(parts)
