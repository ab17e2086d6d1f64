"""CIFAR-10 and CIFAR-100 as they are published: pickles ("python version") or binary files ("binary version").

A pickle is a program; here only the few calls that make arrays are known, as stand-ins that compute nothing.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ffcv_imagenet.data.sources.files import FolderMembers
from ffcv_imagenet.data.sources.members import Members, arrange, check_classes
from ffcv_imagenet.data.sources.root import Root
from ffcv_imagenet.data.sources.source import Source
from ffcv_imagenet.names import shown

SIDE = 32
_PIXELS = 3 * SIDE * SIDE


@dataclass(frozen=True)
class _Version:
    """Names of the files, and where the labels are: the key of a pickle, or the byte of a record and its length."""

    files: dict[str, tuple[str, ...]]
    names: str
    label: str | int
    record: int = 0

    @property
    def is_pickle(self) -> bool:
        return isinstance(self.label, str)


#: By the folder that the published archive unpacks to.
VERSIONS = {
    "cifar-10-batches-py": _Version(
        {"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "val": ("test_batch",)}, "batches.meta", "labels"
    ),
    "cifar-100-python": _Version({"train": ("train",), "val": ("test",)}, "meta", "fine_labels"),
    "cifar-10-batches-bin": _Version(
        {"train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "val": ("test_batch.bin",)},
        "batches.meta.txt",
        0,
        1 + _PIXELS,
    ),
    "cifar-100-binary": _Version(
        {"train": ("train.bin",), "val": ("test.bin",)}, "fine_label_names.txt", 1, 2 + _PIXELS
    ),
}


def looks_like(root: Root) -> bool:
    """Whether it is one of the published archives, or a folder that one unpacks to."""
    return _find(root) is not None


def open_splits(root: Root, splits: Sequence[str]) -> dict[str, Source]:
    """The splits; ``val`` is the published test set.

    Raises:
        ValueError: a file is missing, damaged, or a pickle of something else.
    """
    found = _find(root)
    if found is None:
        raise ValueError(f"{shown(root.path)} has none of {', '.join(VERSIONS)}")
    folder, members, start = found
    version = VERSIONS[folder]
    names = _class_names(members, start, version)
    sources: dict[str, Source] = {}
    for split in splits:
        contents, places = [], []
        for file in version.files[split]:
            number = members.need(start + file)
            content = _read(members, number)
            try:
                read = _from_pickle(content, version) if version.is_pickle else _from_records(content, version)
            except Exception as error:  # an unpickler raises almost anything on bad bytes
                raise ValueError(f"{shown(members.where(number))} is not CIFAR's: {error!r}") from None
            if len(read[0]) and not 0 <= read[1].min() <= read[1].max() < len(names):
                raise ValueError(f"{shown(members.where(number))} has labels outside of 0 to {len(names) - 1}")
            contents.append((content, *read))
            places += [f"{members.where(number)}, image {image}" for image in range(len(read[0]))]
        pixels = np.concatenate([pixels for _, pixels, _ in contents])
        labels = np.concatenate([labels for _, _, labels in contents])
        by_class = {name: np.flatnonzero(labels == label).tolist() for label, name in enumerate(names)}
        sources[split] = arrange(
            "cifar",
            _Pixels(members.place, places, pixels),
            by_class,
            "{:05}.ppm".format,
            place=f"{members.place}: {start}{version.files[split][0]}",
            name=folder,
            classes=names,
            damage=members.damage,
            content=hashlib.sha256(b"".join(content for content, *_ in contents)).hexdigest(),
        )
    check_classes(sources)
    return sources


class _Pixels(Members):
    """Images in memory, as PPM files."""

    def __init__(self, place: str, places: list[str], pixels: np.ndarray):
        self.place, self.names, self.damage = place, places, {}
        self.sizes = np.full(len(places), len(self._header) + _PIXELS, np.int64)
        self._pixels = pixels

    _header = f"P6 {SIDE} {SIDE} 255\n".encode()

    def _read(self, number: int) -> bytes:
        return self._header + self._pixels[number].transpose(1, 2, 0).tobytes()

    def where(self, number: int) -> str:
        """File and place in it."""
        return self.names[number]


def _find(root: Root) -> tuple[str, Members, str] | None:
    """Which version is there, its files, and where they begin in the archive."""
    for folder, version in VERSIONS.items():
        if root.path.is_dir():
            for path in (root.path, root.path / folder):
                if (path / version.names).is_file() and (path / version.files["val"][0]).is_file():
                    files = [file for files in version.files.values() for file in files]
                    there = [file for file in (*files, version.names) if (path / file).is_file()]
                    return folder, FolderMembers(path, there), ""
        elif root.members is not None:
            start = f"{folder}/"
            if start + version.names in root.members.names:
                return folder, root.members, start
    return None


def _read(members: Members, number: int) -> bytes:
    try:
        return members.read(number)
    except ValueError as error:
        raise ValueError(f"{shown(members.where(number))}: {error}") from None


def _class_names(members: Members, start: str, version: _Version) -> list[str]:
    number = members.need(start + version.names)
    content = _read(members, number)
    if not version.is_pickle:
        return content.decode().split()
    try:
        meta = _SafeUnpickler(content).load()
        names = meta[b"label_names"] if b"label_names" in meta else meta[b"fine_label_names"]
        return [name.decode() for name in names]
    except Exception as error:
        raise ValueError(f"{shown(members.where(number))} is not CIFAR's: {error!r}") from None


def _from_records(content: bytes, version: _Version) -> tuple[np.ndarray, np.ndarray]:
    """[N, 3, 32, 32] uint8 and [N] labels."""
    if len(content) % version.record:
        raise ValueError(f"{len(content)} bytes are no whole number of records of {version.record}")
    records = np.frombuffer(content, np.uint8).reshape(-1, version.record)
    labels = records[:, version.label].astype(np.int64)  # type: ignore[index]
    return records[:, -_PIXELS:].reshape(-1, 3, SIDE, SIDE), labels


def _from_pickle(content: bytes, version: _Version) -> tuple[np.ndarray, np.ndarray]:
    batch = {_text(key): value for key, value in _SafeUnpickler(content).load().items()}
    labels = np.array([int(label) for label in batch[str(version.label)]], np.int64)
    pixels = np.frombuffer(batch["data"].content, np.uint8).reshape(len(labels), 3, SIDE, SIDE)
    return pixels, labels


def _text(key: Any) -> str:
    return key.decode() if isinstance(key, bytes) else key


class _Array:
    """Stands in for a numpy array in a pickle: keeps its bytes."""

    content: bytes = b""

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.content = state[-1] if isinstance(state[-1], bytes) else b""


class _DType:
    """Stands in for the type of an array; only bytes are taken."""

    def __init__(self, name: Any, *_: Any):
        if _text(name) != "u1":
            raise ValueError(f"an array of {name!r}, allowed is u1")

    def __setstate__(self, state: Any) -> None:
        pass


#: What a pickle may call, and what is called instead.
_STANDINS: dict[tuple[str, str], Any] = {
    ("_reconstruct", "multiarray"): _Array,
    ("ndarray", "numpy"): _Array,
    ("dtype", "numpy"): _DType,
    ("encode", "_codecs"): lambda text, _: text.encode("latin1"),  # how protocol 2 keeps bytes
}


class _SafeUnpickler(pickle.Unpickler):
    """Reads texts, numbers, lists and byte arrays; whatever else a pickle wants to call is refused."""

    def __init__(self, content: bytes):
        super().__init__(io.BytesIO(content), encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in; raises ValueError on anything else."""
        found = _STANDINS.get((name, module.rpartition(".")[2]))
        if found is None:
            raise ValueError(f"the pickle calls {module}.{name}, which is not run")
        return found
