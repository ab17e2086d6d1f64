"""Caltech-UCSD Birds 200-2011 (CUB): a folder per class, and the official split in a list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ffcv_imagenet.data.sources.files import FolderMembers
from ffcv_imagenet.data.sources.members import Members, arrange, check_classes
from ffcv_imagenet.data.sources.root import Root
from ffcv_imagenet.data.sources.source import Source
from ffcv_imagenet.names import shown

TOP = "CUB_200_2011"
_LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")


def looks_like(root: Root) -> bool:
    """Whether it is CUB_200_2011.tgz, or the folder that it unpacks to, or one with that folder."""
    if root.path.is_dir():
        return _folder(root.path) is not None
    return root.members is not None and f"{TOP}/{_LISTS[0]}" in root.members.names


def open_splits(root: Root, splits: Sequence[str]) -> dict[str, Source]:
    """The official training and test images (``val``).

    Raises:
        ValueError: lists that are missing or do not fit together.
    """
    members: Members
    if root.path.is_dir():
        folder = _folder(root.path)
        if folder is None:
            raise ValueError(f"{shown(root.path)} has no {TOP}/{_LISTS[0]}")
        members, top = FolderMembers.below(folder), ""
    elif root.members is None:
        raise ValueError(f"{shown(root.path)} is no archive")
    else:
        members, top = root.members, f"{TOP}/"
    tables = [_read_list(members, top + name) for name in _LISTS]
    images, labels, in_train, classes = tables
    there = {name: number for number, name in enumerate(members.names)}
    names = [classes[key] for key in sorted(classes, key=int)]
    sources: dict[str, Source] = {}
    for split, flag in (("train", "1"), ("val", "0")):
        if split not in splits:
            continue
        by_class: dict[str, list[int]] = {name: [] for name in names}
        damage = dict(members.damage)
        for image, path in images.items():
            if image not in labels or image not in in_train or labels[image] not in classes:
                raise ValueError(f"{shown(members.place)}: {' or '.join(_LISTS[1:])} does not tell about image {image}")
            if in_train[image] == flag:
                number = there.get(f"{top}images/{path}")
                if number is None:
                    damage[path] = f"{_LISTS[0]} has it, {shown(members.place)} has not"
                else:
                    by_class[classes[labels[image]]].append(number)
        sources[split] = arrange(
            "cub",
            members,
            by_class,
            lambda number: members.names[number].rpartition("/")[2],
            place=f"{members.place} ({split})",
            name=TOP,
            names={name: name.partition(".")[2].replace("_", " ") for name in names},
            damage=damage,
        )
    check_classes(sources)
    return sources


def _folder(path: Path) -> Path | None:
    return next((folder for folder in (path, path / TOP) if all((folder / name).is_file() for name in _LISTS)), None)


def _read_list(members: Members, name: str) -> dict[str, str]:
    """The second word of each line by the first."""
    if name not in members.names:
        raise ValueError(f"{shown(members.place)} has no {name}")
    number = list(members.names).index(name)
    lines = members.read_text(number).split("\n")
    return {key: value.strip() for key, _, value in (line.strip().partition(" ") for line in lines) if value}
