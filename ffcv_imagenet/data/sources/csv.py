"""Images that a CSV file lists: path, label and, where one file has both, the split."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from ffcv_imagenet.data.sources.files import FolderMembers
from ffcv_imagenet.data.sources.members import arrange, check_classes, class_of_label
from ffcv_imagenet.data.sources.root import Root
from ffcv_imagenet.data.sources.source import Source
from ffcv_imagenet.files import read_lines
from ffcv_imagenet.names import shown

#: Names that a column may have in the first line.
_COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path"),
    "label": ("label", "class", "target", "class_name"),
    "split": ("split", "set", "subset"),
}

#: What stands in the column of the split.
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}

#: What may stand there besides, for images that are left out.
_LEFT_OUT = ("test", "testing")


def looks_like(root: Root) -> bool:
    """Whether it is a CSV file, or a folder with those of splits."""
    if root.path.is_file():
        return root.path.suffix.lower() == ".csv"
    return any((root.path / f"{split}.csv").is_file() for split in ("train", "val"))


def open_splits(root: Root, splits: Sequence[str]) -> dict[str, Source]:
    """The splits; paths are relative to the CSV file, or absolute.

    Labels are class names (ordered by name) or the numbers 0, 1, 2 ...

    Raises:
        FileNotFoundError: a CSV file or split is not there.
        ValueError: a line that cannot be read, or splits of different classes.
    """
    rows: dict[str, list[tuple[str, str]]] = {}
    places = {split: root.path if root.path.is_file() else root.path / f"{split}.csv" for split in splits}
    for split, path in places.items():
        if not path.is_file():
            raise FileNotFoundError(f"file not found: {shown(path)}")
        of_one_split = path != root.path or len(splits) == 1
        read = _read(path)
        rows[split] = [row[:2] for row in read if row[2] == split or (of_one_split and not row[2])]
        if not rows[split]:
            allowed = " | ".join(_SPLITS)
            raise FileNotFoundError(f"{shown(path)} has no images of {split} (a column split with {allowed})")
        if without := [row[0] for row in read if not (row[2] or of_one_split)]:
            raise ValueError(f"{shown(path)}: {shown(without[0])} has no split, which other lines have")
    sources: dict[str, Source] = {}
    for split, listed in rows.items():
        labels = {label for _, label in listed}
        name_of = {label: label for label in labels}
        if all(label.isdecimal() for label in labels):
            numbered = class_of_label(map(int, labels), str(places[split]))
            name_of = {label: numbered[int(label)] for label in labels}
        members = FolderMembers(places[split].parent, [path for path, _ in listed])
        by_class: dict[str, list[int]] = {}
        for number, (_, label) in enumerate(listed):
            by_class.setdefault(name_of[label], []).append(number)
        sources[split] = arrange(
            "csv", members, by_class, members.names.__getitem__, place=str(places[split]), name=root.name
        )
    check_classes(sources)
    return sources


def _read(path: Path) -> list[tuple[str, str, str]]:
    """Path, label and split ("" where there is no such column) of each line."""
    try:
        read = enumerate(csv.reader(read_lines(path)), 1)
        lines = [(number, row) for number, row in read if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise ValueError(f"{shown(path)}: {error}") from None
    if not lines:
        return []
    columns = {"path": 0, "label": 1, "split": 2}
    first = [cell.strip().lower() for cell in lines[0][1]]
    if any(cell in _COLUMNS["path"] for cell in first):
        columns = {}
        for column, names in _COLUMNS.items():
            if found := [number for number, cell in enumerate(first) if cell in names]:
                columns[column] = found[0]
        lines = lines[1:]
    rows = []
    for number, row in lines:
        cells = {column: row[at].strip() for column, at in columns.items() if at < len(row)}
        if not cells.get("path") or not cells.get("label"):
            raise ValueError(f"{shown(path)}, line {number}: got {row!r}, allowed is path,label or path,label,split")
        split = cells.get("split", "").lower()
        if split and split not in (*_SPLITS, *_LEFT_OUT):
            raise ValueError(
                f"{shown(path)}, line {number}: got the split {cells['split']!r}, allowed is {' | '.join(_SPLITS)}, or "
                f"{' | '.join(_LEFT_OUT)} for images that are left out"
            )
        rows.append((cells["path"], cells["label"], _SPLITS.get(split, split)))
    return rows
