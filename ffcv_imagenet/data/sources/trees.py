"""Archives that hold what an image folder holds: ``[.../]train/<class>/**/<image>``, or one archive per split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ffcv_imagenet.data.sources.members import (
    Members,
    PackedImages,
    check_classes,
    class_folders,
    top_of_classes,
    tops_of_splits,
)
from ffcv_imagenet.data.sources.root import Root, need_archive
from ffcv_imagenet.data.sources.source import Source
from ffcv_imagenet.names import shown

SPLITS = ("train", "val")


def open_tree(format: str, root: Root, splits: Sequence[str]) -> dict[str, Source]:
    """The splits in one archive.

    Raises:
        FileNotFoundError: a split that is not there.
        ValueError: a class without images, or splits of different classes.
    """
    members = root.members
    assert members is not None
    tops = tops_of_splits(members, {*SPLITS, *splits})
    sources: dict[str, Source] = {}
    for split in dict.fromkeys(("train", *splits)):  # labels are train's, also where val is written alone
        if split in tops:
            place = f"{members.place}: {tops[split]}"
            sources[split] = class_folders(format, members, tops[split], place=place, name=root.name)
        elif split in splits:
            there = ", ".join(sorted({name.split("/")[0] for name in members.names}.difference({""}))[:5])
            damage = "".join(f"; {reason}" for reason in members.damage.values())
            raise FileNotFoundError(
                f"folder {split}/<class>/<image> not found in {shown(members.place)}, which begins with "
                f"{shown(there)}{damage}"
            )
    check_classes(sources)
    return {split: sources[split] for split in splits}


def has_split_archives(root: Root, suffixes: Sequence[str]) -> bool:
    """Whether a folder has an archive ``train`` or ``val`` with one of the suffixes."""
    return root.path.is_dir() and any(_split_archives(root.path, split, suffixes) for split in SPLITS)


def open_split_archives(
    format: str,
    root: Root,
    splits: Sequence[str],
    suffixes: Sequence[str],
    mapped: Callable[[str, Members, Root], PackedImages | None] = lambda split, members, root: None,
) -> dict[str, Source]:
    """Splits that are an archive each: ``root/train<suffix>`` with ``[train/]<class>/**/<image>``.

    Args:
        format: see :class:`Source`.
        root: the folder.
        splits: which are wanted.
        suffixes: of the archives.
        mapped: reads a split whose labels are given otherwise; None where they are not.

    Raises:
        FileNotFoundError: a split that is not there.
        ValueError: two archives of a split, a class without images, or splits of different classes.
    """
    sources: dict[str, Source] = {}
    for split in dict.fromkeys(("train", *splits)):
        paths = _split_archives(root.path, split, suffixes)
        if len(paths) > 1:
            raise ValueError(f"there are both {shown(paths[0])} and {shown(paths[1])}: move one of them away")
        if not paths:
            if split in splits:
                raise FileNotFoundError(f"archive not found: {shown(root.path / split)}{suffixes[0]}")
            continue
        members = need_archive(paths[0])
        top = tops_of_splits(members, [split]).get(split)
        sources[split] = mapped(split, members, root) or class_folders(
            format, members, top_of_classes(members) if top is None else top, place=members.place, name=root.name
        )
    check_classes(sources)
    return {split: sources[split] for split in splits}


def _split_archives(folder: Path, split: str, suffixes: Sequence[str]) -> list[Path]:
    return [path for suffix in suffixes if (path := folder / f"{split}{suffix}").is_file()]
