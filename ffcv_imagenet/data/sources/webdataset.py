"""WebDataset shards: tar files in which the members of a sample share their name up to the first point."""

from __future__ import annotations

import json
import os
import re
import resource
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ffcv_imagenet.data.sources.members import Members, arrange, check_classes, class_of_label, is_image
from ffcv_imagenet.data.sources.root import Root
from ffcv_imagenet.data.sources.shards import by_split, shards_of
from ffcv_imagenet.data.sources.source import Source
from ffcv_imagenet.data.sources.tar import TarMembers, is_tar
from ffcv_imagenet.names import shown

#: Keys of a sample's JSON that may hold its label.
_LABEL_KEYS = ("label", "cls", "class")


def looks_like(root: Root) -> bool:
    """Whether there are tar files with numbers in their names, or tar files with a label next to each image."""
    shards = shards_of(root, ".tar")
    if root.path.is_file():
        return bool(shards) and is_tar(root.path) and _has_labels(root.members)
    return any(re.search(r"\d{2,}\.tar$", path.name) for path in shards)


def open_splits(root: Root, splits: Sequence[str]) -> dict[str, Source]:
    """The splits; a label stands in the sample's ``.cls``, in its ``.json``, or is the folder of its members.

    Raises:
        FileNotFoundError: no shard of a split.
        ValueError: a sample without image or label, or splits of different classes.
    """
    sources: dict[str, Source] = {}
    for split, paths in by_split(root, ".tar", splits).items():
        members = Shards(paths)
        place = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
        labels, images = _read_labels(members)
        name_of = {label: label for label in set(labels)}
        if all(label.isdecimal() for label in name_of):
            numbered = class_of_label(map(int, name_of), place)
            name_of = {label: numbered[int(label)] for label in name_of}
        by_class: dict[str, list[int]] = {}
        for number, label in zip(images, labels, strict=True):
            by_class.setdefault(name_of[label], []).append(number)
        sources[split] = arrange(
            "webdataset",
            members,
            by_class,
            lambda number, members=members: members.names[number].rpartition("/")[2],  # type: ignore[misc]
            place=place,
            name=root.name if len(root.paths) == 1 else root.path.parent.resolve().name,
        )
    check_classes(sources)
    return sources


class Shards(Members):
    """The members of several tar files."""

    def __init__(self, paths: Sequence[Path]):
        """List all of them; raises as :class:`TarMembers`."""
        _allow_open_files(len(paths))
        self.parts = [TarMembers(path) for path in paths]
        self.place = self.parts[0].place
        self.names = [name for part in self.parts for name in part.names]
        self.sizes = np.concatenate([part.sizes for part in self.parts])
        self.damage = {what: reason for part in self.parts for what, reason in part.damage.items()}
        self._ends = np.cumsum([len(part.names) for part in self.parts])

    def _read(self, number: int) -> bytes:
        part, place = self._part(number)
        return part.read(place)

    def where(self, number: int) -> str:
        """Shard and member."""
        part, place = self._part(number)
        return part.where(place)

    def _part(self, number: int) -> tuple[TarMembers, int]:
        at = int(np.searchsorted(self._ends, number, "right"))
        return self.parts[at], number - (int(self._ends[at - 1]) if at else 0)


def _allow_open_files(count: int) -> None:
    """As many files may be open at a time as the system grants, where ``count`` more would be too many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count + 256:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _has_labels(members: Members | None) -> bool:
    return members is not None and any(name.endswith((".cls", ".json")) for name in members.names)


def _read_labels(members: Shards) -> tuple[list[str], list[int]]:
    """The label and the image's number of each sample."""
    labels: list[str] = []
    images: list[int] = []
    start = 0
    for part in members.parts:
        samples: dict[str, dict[str, int]] = {}
        for number, name in enumerate(part.names, start):
            folder, _, file = name.rpartition("/")
            key, _, kind = file.partition(".")
            if key:  # not a hidden file
                samples.setdefault(f"{folder}/{key}", {})[kind.lower()] = number
        start += len(part.names)
        for key, kinds in samples.items():
            found = [number for kind, number in kinds.items() if is_image(f".{kind}")]
            if not found:
                continue  # such as a file about the shard
            if len(found) > 1:
                raise ValueError(
                    f"{shown(members.where(found[0]))}: the sample has {len(found)} images, allowed is one"
                )
            labels.append(_label(members, key, kinds, found[0]))
            images.append(found[0])
    if not images:
        raise ValueError(f"{shown(members.place)} has no images")
    return labels, images


def _label(members: Shards, key: str, kinds: dict[str, int], image: int) -> str:
    if "cls" in kinds:
        return members.read_text(kinds["cls"]).strip()
    if "json" in kinds:
        try:
            content = json.loads(members.read_text(kinds["json"]))
            found = [content[name] for name in _LABEL_KEYS if isinstance(content.get(name), (int, str))]
        except (ValueError, AttributeError):
            found = []
        if not found:
            where = shown(members.where(kinds["json"]))
            raise ValueError(f"{where}: allowed is a JSON object with a label in {' | '.join(_LABEL_KEYS)}")
        return str(found[0])
    folder = os.path.basename(key.rpartition("/")[0])  # noqa: PTH119 (a name in an archive)
    if not folder:
        raise ValueError(f"{shown(members.where(image))}: the sample has no .cls, no .json and no folder of its class")
    return folder
