"""From what a user names to the images in it: which format it has, and its splits."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from ffcv_imagenet.data.sources.formats import FORMATS, GENERAL, TORCHVISION
from ffcv_imagenet.data.sources.members import is_image
from ffcv_imagenet.data.sources.root import Root
from ffcv_imagenet.data.sources.source import Source
from ffcv_imagenet.data.sources.vision import open_dataset
from ffcv_imagenet.files import read_lines
from ffcv_imagenet.names import shown


def find_sources(
    root: Path,
    splits: Sequence[str],
    format: str = "auto",
    class_order: str | None = None,
    class_names: Path | None = None,
) -> dict[str, Source]:
    """The images of each split.

    Args:
        root: a folder or an archive.
        splits: ``train``, ``val``.
        format: one of FORMATS, ``torchvision:CLASS``, or ``auto``: look which one it is.
        class_order: ``name`` or ``map`` (with labels of a map file: their order); None: ``name``.
        class_names: file of the names that people use, a line for each class: ``n01440764 tench`` or, in the order of
            the labels, ``tench``.

    Raises:
        FileNotFoundError: ``root`` or a split is not there.
        ValueError: it has no format that is known, or more than one; or it is damaged.
    """
    opened = Root(root, class_order or "name")
    assert opened.paths  # all are there
    chosen = recognise(opened) if format == "auto" else format
    if class_order is not None and chosen != "zip":
        raise ValueError(f"data.class_order: got {class_order}, but it applies only with data.format=zip")
    if chosen.startswith(TORCHVISION):
        sources = open_dataset(chosen.removeprefix(TORCHVISION), opened, splits)
    else:
        sources = _module(chosen).open_splits(opened, splits)
    if missing := [split for split in splits if split not in sources]:
        raise FileNotFoundError(f"{shown(root)} has no split {' and no split '.join(missing)} (format {chosen})")
    if class_names is None:
        return sources
    return {split: _named(source, class_names) for split, source in sources.items()}


def _named(source: Source, file: Path) -> Source:
    """A source with the classes' names from a file."""
    if not file.is_file():
        raise FileNotFoundError(f"data.class_names: no such file: {shown(file)}")
    lines = [line.strip() for line in read_lines(file) if line.strip()]
    by_class = {name: words.strip() for name, _, words in (line.partition(" ") for line in lines)}
    if all(by_class.get(name) for name in source.classes):
        return dataclasses.replace(source, class_names=tuple(by_class[name] for name in source.classes))
    if len(lines) != len(source.classes):
        raise ValueError(
            f"data.class_names: {shown(file)} has {len(lines)} lines, allowed are a line for each of the "
            f"{len(source.classes)} classes in the order of the labels, or lines such as {source.classes[0]} NAME"
        )
    return dataclasses.replace(source, class_names=tuple(lines))


def recognise(root: Root) -> str:
    """The format of a data set.

    Raises:
        ValueError: none that is known, or more than one.
    """
    for candidates in ([name for name in FORMATS if name not in GENERAL], GENERAL):
        found = [name for name in candidates if _module(name).looks_like(root)]
        if len(found) > 1:
            allowed = " | ".join(found)
            raise ValueError(f"{shown(root.path)} may be any of {', '.join(found)}: give --data.format={allowed}")
        if found:
            return found[0]
    there = ""
    if root.path.is_dir():
        names = sorted(path.name for path in root.path.iterdir())
        there = f" (it has {', '.join(map(shown, names[:5]))}{', ...' if len(names) > 5 else ''})" if names else ""
        if any(is_image(path.name) for path in root.path.glob("*/*")):
            above = root.path.resolve()
            helps = f": is {shown(above.parent)} meant?" if above.name in ("train", "val") else ""
            raise ValueError(
                f"{shown(root.path)} has folders of images{there}, expected is train/<class>/<image> and "
                f"val/<class>/<image>, or another form in docs/data.md{helps}"
            )
    raise ValueError(
        f"{shown(root.path)} is no data set that is known{there}: expected is "
        + "; ".join(f"{name}: {text}" for name, text in FORMATS.items())
    )


def describe(sources: Mapping[str, Source]) -> str:
    """What was found, in a line."""
    parts = [
        f"{split} has {len(source.files)} images in {len(source.classes)} classes" for split, source in sources.items()
    ]
    return f"format {next(iter(sources.values())).format}: {', '.join(parts)}"


def _module(format: str) -> ModuleType:
    return importlib.import_module(f"ffcv_imagenet.data.sources.{format}")
