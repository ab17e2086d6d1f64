"""Classes in another order than ours: of weights that were trained with other labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def read_class_order(path: Path) -> list[str]:
    """The names of classes in the order of their labels.

    ``path`` has a name per line; or lines ``PATH<tab>LABEL``, as DeiT's maps for ZIP archives, where a class's name is
    the folder of its images.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is neither, labels other than 0..K-1, or a class with two names or labels.
    """
    if not path.is_file():
        raise FileNotFoundError(f"class order not found: {path}")
    lines = [line.rstrip("\r\n") for line in path.read_text().splitlines() if line.strip()]
    if not any("\t" in line for line in lines):
        names = [line.strip() for line in lines]
    else:
        by_label: dict[int, str] = {}
        for number, line in enumerate(lines, start=1):
            file, _, label = line.rpartition("\t")
            name = Path(file).parent.name
            if not label.strip().isdecimal() or not name:
                raise ValueError(f"{path}, line {number}: got {line!r}, allowed is CLASS/FILE, a tab and a label")
            if by_label.setdefault(int(label), name) != name:
                raise ValueError(f"{path}, line {number}: label {label} is {by_label[int(label)]} and {name}")
        if sorted(by_label) != list(range(len(by_label))):
            raise ValueError(f"{path}: allowed are labels from 0 to {len(by_label) - 1}, got up to {max(by_label)}")
        names = [by_label[label] for label in range(len(by_label))]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path}: the class {twice} has two labels")
    return names


def rows_in_order(theirs: Sequence[str], ours: Sequence[str], path: Path) -> list[int]:
    """For each of our classes, its label among theirs.

    Raises:
        ValueError: they are not the same classes.
    """
    if set(theirs) != set(ours):
        other = sorted(set(theirs) ^ set(ours))
        raise ValueError(
            f"{path} has {len(theirs)} classes, the data {len(ours)}; not in both: {', '.join(other[:5])}"
            + (", ..." if len(other) > 5 else "")
        )
    place = {name: label for label, name in enumerate(theirs)}
    return [place[name] for name in ours]
