"""Data sets in many files with a number each (shards), of one split or another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ffcv_imagenet.data.sources.root import Root
from ffcv_imagenet.names import shown

#: What the name of a file says of its split.
_SPLIT = re.compile(r"(?<![a-z])(train|val|valid|validation)(?![a-z])", re.IGNORECASE)


def shards_of(root: Root, suffix: str) -> list[Path]:
    """The files of a pattern or folder (and its folder ``data``) with ``suffix``, by name, or the one that is given."""
    if len(root.paths) == 1 and root.path.is_dir():
        below = [path for folder in (root.path, root.path / "data") for path in folder.glob(f"*{suffix}")]
        return sorted(path for path in below if path.is_file())
    return sorted(path for path in root.paths if path.name.endswith(suffix))


def by_split(root: Root, suffix: str, splits: Sequence[str]) -> dict[str, list[Path]]:
    """The shards of each split, by what their names say (``imagenet-train-000000.tar``).

    Raises:
        FileNotFoundError: none of a split.
    """
    found: dict[str, list[Path]] = {}
    shards = shards_of(root, suffix)
    for path in shards:
        says = _SPLIT.search(path.name)
        if says is not None:
            found.setdefault("train" if says[1].lower() == "train" else "val", []).append(path)
        elif len(splits) == 1:
            found.setdefault(splits[0], []).append(path)
    for split in splits:
        if split not in found:
            some = ", ".join(shown(path.name) for path in shards[:3])
            raise FileNotFoundError(
                f"{shown(root.path)} has no {suffix} file with {split} in its name (it has {some}); for a single "
                f"split give --write.splits={'train' if split == 'val' else 'val'}"
            )
    return {split: found[split] for split in splits}
