"""The manifest ``<name>.beton.json``: what a .beton file holds and how it was made.

The trainer takes the classes from it, it tells the writer that a file is finished, and its checksum reveals damage. It
is plain JSON, strictly checked on reading.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from ffcv_imagenet.data.format import records
from ffcv_imagenet.files import write_atomically
from ffcv_imagenet.progress import Progress

#: Changes when a reader of the old manifest would misread the new one.
FORMAT_VERSION = 2

#: The checksum is made of the checksums of blocks of this many bytes, so that it can be computed while the pages
#: are written (the head of a .beton is known last) and on many cores. Every FFCV page is a multiple of it.
CHECKSUM_BLOCK = 2 << 20

#: Most pixels of an image, by default: the limit of Pillow, and so of torchvision's ImageFolder.
MAX_PIXELS = 178_956_970

#: What a .beton without a manifest is, and what to do.
WITHOUT_MANIFEST = (
    "it is a file of stock FFCV, or its manifest is lost; nothing tells its classes and how it was made. Write it anew "
    "from the images with python -m ffcv_imagenet.write, or make a manifest for it with "
    "python -m ffcv_imagenet.data.adopt"
)


def not_found(beton: Path) -> str:
    """What to say where ``beton`` is no file."""
    if not beton.is_dir():
        return f"data set not found: {beton} (python -m ffcv_imagenet.write makes it)"
    inside = [str(path) for path in sorted(beton.glob("*.beton"))]
    helps = f"such as {', '.join(inside[:2])}" if inside else "which python -m ffcv_imagenet.write makes of images"
    return f"data set not found: {beton} is a folder, allowed is a .beton file, {helps}"


@dataclass(frozen=True)
class WriteParameters:
    """All choices that decide the bytes of a .beton, with presets and defaults filled in.

    Attributes:
        mode: ``raw``, ``jpg``, ``smart`` or ``proportion``.
        max_resolution: longest side in pixels; None keeps every size.
        resize: filter that shrinks larger images: ``area``, ``triangle``, ``bicubic``; None without ``max_resolution``.
            ``by_file_type``: triangle for JPEGs, area for others, as earlier versions did without saying so.
        compress_probability: share of JPEG images; None unless ``mode`` is ``proportion``.
        smart_threshold: JPEG where raw takes more than this many times its bytes; None unless ``mode`` is ``smart``.
        jpeg_quality: 1..100; None in mode ``raw``.
        reencode: whether JPEG files that are small enough are compressed again, too.
        subset: number of images drawn from the source, -1 for all.
        shuffle: whether the images are stored in random order.
        seed: of the compressed share, the subset and the shuffle.
        page_size_mib: FFCV's page size.
        max_pixels: files of images with more pixels are refused.
        per_class: images drawn from each class, at most; None for all.
        imbalance: ``exp:RATIO`` or ``step:RATIO``, see :func:`subsets.long_tail`; None keeps the classes as they are.
    """

    mode: str
    max_resolution: int | None
    resize: str | None
    compress_probability: float | None
    smart_threshold: float | None
    jpeg_quality: int | None
    reencode: bool
    subset: int
    shuffle: bool
    seed: int
    page_size_mib: int
    max_pixels: int
    per_class: int | None = None
    imbalance: str | None = None


@dataclass(frozen=True)
class Manifest:
    """Content of one ``<name>.beton.json``.

    Attributes:
        format_version: of this manifest.
        split: ``train`` or ``val``.
        classes: class names; a label is an index into them.
        images_per_class: number of images of each class.
        num_samples: number of images.
        parameters: how the images were chosen and stored.
        source_folder: name of the folder or archive that the images came from.
        source_digest: hash of the listing of all images of the split, see :class:`sources.Source`.
        skipped: files of the split that could not be stored and are left out, with the reason.
        versions: of the packages that decide the bytes.
        num_bytes: size of the .beton.
        checksum: of the .beton, see :func:`combine_digests`.
        tables_checksum: of its head and allocation table alone, see :func:`beton.tables_checksum`; compared at every
            opening.
        created: date and time (ISO 8601, UTC).
        source_format: what the images came in, one of :data:`sources.formats.FORMATS`.
        class_names: what people call the classes, in their order; empty where the source does not tell.
    """

    format_version: int
    split: str
    classes: tuple[str, ...]
    images_per_class: tuple[int, ...]
    num_samples: int
    parameters: WriteParameters
    source_folder: str
    source_digest: str
    skipped: dict[str, str]
    versions: dict[str, str]
    num_bytes: int
    checksum: str
    tables_checksum: str
    created: str
    source_format: str = "folder"
    class_names: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def empty_classes(self) -> list[str]:
        """The classes without an image."""
        return [name for name, count in zip(self.classes, self.images_per_class, strict=True) if count == 0]

    @staticmethod
    def path(beton: Path) -> Path:
        """Where the manifest of a .beton file lies."""
        return beton.with_name(beton.name + ".json")

    @classmethod
    def read(cls, beton: Path) -> Manifest:
        """Read and check the manifest of a .beton file; of the .beton itself only the size is checked.

        Raises:
            FileNotFoundError: the .beton or its manifest is not there.
            ValueError: it is no .beton, the manifest is damaged or of another version, or the .beton has another size.
        """
        path = cls.path(beton)
        if not beton.is_file():
            raise FileNotFoundError(not_found(beton))
        if not path.is_file():
            with beton.open("rb") as file:
                if int.from_bytes(file.read(2), "little") != records.VERSION:
                    raise ValueError(f"{beton} is not a .beton file (python -m ffcv_imagenet.write makes them)")
            raise FileNotFoundError(f"{beton} has no manifest {path.name}: {WITHOUT_MANIFEST}")
        try:
            content = json.loads(path.read_bytes(), object_pairs_hook=_unique_keys, parse_constant=_no_constant)
            version = content.get("format_version") if isinstance(content, dict) else None
            if version != FORMAT_VERSION:
                raise ValueError(
                    f"format_version is {version!r}, allowed is {FORMAT_VERSION} "
                    "(python -m ffcv_imagenet.write writes it again)"
                )
            _add_new_options(content.get("parameters"))
            content = {"source_format": "folder", "class_names": []} | content  # not in those of earlier versions
            manifest = _from_json(cls, content, "manifest")
            manifest._check()
        except (ValueError, RecursionError) as error:  # json raises the latter on deep nesting
            raise ValueError(f"{path} is not a valid manifest: {error}") from None
        size = beton.stat().st_size
        if size != manifest.num_bytes:
            raise ValueError(f"{beton} is damaged: it has {size} bytes, its manifest says {manifest.num_bytes}")
        return manifest

    def write(self, beton: Path) -> None:
        """Write the manifest next to a .beton file, atomically: no reader ever sees half of it."""
        write_atomically(self.path(beton), self.encoded())

    def encoded(self) -> bytes:
        """What is in its file."""
        return json.dumps(dataclasses.asdict(self), indent=1).encode()

    def verify(self, beton: Path) -> None:
        """Read the whole .beton file and compare its checksum.

        Raises:
            ValueError: the file is not the one that was written.
        """
        checksum = file_checksum(beton)
        if checksum != self.checksum:
            raise ValueError(f"{beton} is damaged: its checksum is {checksum}, its manifest says {self.checksum}")

    def _check(self) -> None:
        if len(self.images_per_class) != len(self.classes) or sum(self.images_per_class) != self.num_samples:
            raise ValueError("classes, images_per_class and num_samples do not fit together")
        if self.class_names and len(self.class_names) != len(self.classes):
            raise ValueError(f"class_names has {len(self.class_names)} names for {len(self.classes)} classes")
        if min(self.images_per_class, default=0) < 0:
            raise ValueError(f"images_per_class is {min(self.images_per_class)}, allowed are numbers >= 0")
        for name, checksum in (("checksum", self.checksum), ("tables_checksum", self.tables_checksum)):
            if not re.fullmatch("[0-9a-f]{64}", checksum):
                raise ValueError(f"{name} is {checksum!r}, allowed are 64 hexadecimal digits")


def file_checksum(beton: Path) -> str:
    """Checksum of a .beton file, read on all cores."""
    starts = range(0, beton.stat().st_size, CHECKSUM_BLOCK)
    with ThreadPoolExecutor() as threads:  # hashlib lets other threads run
        digests = threads.map(lambda start: _block_digest(beton, start), starts)
        with Progress(f"checksum of {beton.name}", len(starts) * (CHECKSUM_BLOCK >> 20), "MiB") as progress:
            return combine_digests(progress.over(digests, CHECKSUM_BLOCK >> 20))


def block_digests(data: bytes | bytearray | memoryview) -> list[bytes]:
    """Digests of the blocks of ``data``, which begins at a multiple of CHECKSUM_BLOCK in the file."""
    view = memoryview(data)
    return [digest(view[start : start + CHECKSUM_BLOCK]) for start in range(0, len(view), CHECKSUM_BLOCK)]


def combine_digests(digests: Iterable[bytes]) -> str:
    """Checksum of a file: SHA-256 of the SHA-256 digests (32 bytes each) of its blocks in order, hexadecimal."""
    whole = hashlib.sha256()
    for digest in digests:
        whole.update(digest)
    return whole.hexdigest()


def digest(block: bytes | memoryview) -> bytes:
    """SHA-256 of some bytes; processors compute it in hardware."""
    return hashlib.sha256(block).digest()


def _block_digest(path: Path, start: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return digest(file.read(CHECKSUM_BLOCK))


def _add_new_options(parameters: Any) -> None:
    """Complete the parameters of a manifest that was written before some options were there."""
    if isinstance(parameters, dict) and {"max_resolution", "page_size_mib"} <= set(parameters):
        parameters.setdefault("resize", None if parameters["max_resolution"] is None else "by_file_type")
        parameters.setdefault("max_pixels", MAX_PIXELS)
        parameters.setdefault("per_class", None)
        parameters.setdefault("imbalance", None)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError(f"a key is there twice among {', '.join(key for key, _ in pairs)}")
    return content


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _from_json(hint: Any, value: Any, where: str) -> Any:
    """Turn JSON into the annotated type ``hint``; raises ValueError naming what is missing or of a wrong type."""
    if dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        if not isinstance(value, dict) or set(value) != set(hints):
            got = sorted(value) if isinstance(value, dict) else type(value).__name__
            raise ValueError(f"{where} must have the keys {', '.join(hints)}, got {got}")
        return hint(**{name: _from_json(kind, value[name], name) for name, kind in hints.items()})  # type: ignore[operator]
    kinds = get_args(hint)
    if get_origin(hint) is tuple:
        if isinstance(value, list):
            return tuple(_from_json(kinds[0], item, where) for item in value)
    elif get_origin(hint) is dict:
        if isinstance(value, dict):
            return {key: _from_json(kinds[1], item, where) for key, item in value.items()}
    elif type(value) in (kinds or (hint,)):  # not isinstance(): to Python True is an int
        return value
    raise ValueError(f"{where} is {value!r}, allowed is {hint if kinds else hint.__name__}")
