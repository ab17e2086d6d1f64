"""Parquet shards as the Hugging Face hub has them: a column ``image`` (bytes, path) and a column ``label``.

A row can only be read with its whole row group, and rows lie in random order. So the images are copied to one temporary
file (TMPDIR) before the first is asked for.
"""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ffcv_imagenet.data.sources.members import Members, arrange, check_classes, class_of_label
from ffcv_imagenet.data.sources.root import Root
from ffcv_imagenet.data.sources.shards import by_split, shards_of
from ffcv_imagenet.data.sources.source import Source
from ffcv_imagenet.data.sources.spool import Spool
from ffcv_imagenet.names import shown

#: Names that the columns may have.
_IMAGES, _LABELS = ("image", "img"), ("label", "fine_label", "labels")

#: Rows that are read at a time.
_ROWS = 64


def looks_like(root: Root) -> bool:
    """Whether there are Parquet files."""
    return bool(shards_of(root, ".parquet"))


def open_splits(root: Root, splits: Sequence[str]) -> dict[str, Source]:
    """The splits, by the names of the shards (``train-00000-of-00294.parquet``).

    Raises:
        FileNotFoundError: no shard of a split.
        ValueError: no Parquet file of images and labels, pyarrow is missing, or splits of different classes.
    """
    sources: dict[str, Source] = {}
    for split, paths in by_split(root, ".parquet", splits).items():
        members = ParquetRows(paths)
        place = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
        labels = members.labels.tolist()
        numbered = dict(enumerate(members.class_names)) or class_of_label(labels, place)
        if outside := [label for label in set(labels) if label not in numbered]:
            raise ValueError(f"{shown(place)}: a label is {outside[0]}, allowed are 0 to {len(numbered) - 1}")
        by_label: dict[int, list[int]] = {}
        for number, label in enumerate(labels):
            by_label.setdefault(label, []).append(number)
        sources[split] = arrange(
            "parquet",
            members,
            {numbered[label]: numbers for label, numbers in by_label.items()},
            members.names.__getitem__,
            place=place,
            name=root.name,
            classes=[numbered[label] for label in range(len(numbered))],
            content=" ".join(f"{path.name} {path.stat().st_size}" for path in paths),
        )
    check_classes(sources)
    return sources


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ValueError("reading Parquet files needs pyarrow: pip install pyarrow") from None
    return pyarrow


class ParquetRows(Members):
    """The rows of several Parquet files.

    Attributes:
        labels: [rows] int64.
        class_names: of the labels, where the files tell; else empty.
    """

    def __init__(self, paths: Sequence[Path]):
        """Read everything but the images; raises ValueError where a file is none of images and labels."""
        self.place, self.damage = str(paths[0]), {}
        self._paths = paths
        self._starts: np.ndarray | None = None
        self._lock = threading.Lock()
        names: list[str] = []
        labels: list[np.ndarray] = []
        self._first: list[int] = []
        for path in paths:
            try:
                file = _pyarrow().parquet.ParquetFile(path)
                columns = _columns(file.schema_arrow)
                table = file.read([f"{columns[0]}.path", columns[1]])
                labels.append(np.asarray(table.column(columns[1]).to_numpy(), np.int64))
                found = table.column(columns[0]).combine_chunks().field("path").to_pylist() if len(table) else []
            except (_pyarrow().ArrowException, OSError, KeyError, TypeError) as error:
                raise ValueError(f"{shown(path)} cannot be read: {' '.join(str(error).split())}") from None
            except ValueError as error:
                raise ValueError(f"{shown(path)}: {error}") from None
            self._first.append(len(names))
            names += [name or f"{len(names) + row:08}" for row, name in enumerate(found)]
        self.names = names
        self.labels = np.concatenate(labels)
        self.sizes = np.zeros(len(names), np.int64)  # not known before all is read
        self.class_names = _class_names(_pyarrow().parquet.ParquetFile(paths[0]).schema_arrow)

    def _read(self, number: int) -> bytes:
        with self._lock:
            if self._starts is None:
                self._copy()
        assert self._starts is not None
        start, end = (int(place) for place in self._starts[number : number + 2])
        return os.pread(self._file, end - start, start)

    def where(self, number: int) -> str:
        """File, row and the path that it tells."""
        part = int(np.searchsorted(self._first, number, "right")) - 1
        return f"{self._paths[part]}: row {number - self._first[part]} ({self.names[number]})"

    def _copy(self) -> None:
        """Copy all images to a temporary file, in their order."""
        starts = [0]
        spool = Spool(f"the images of {self.place} and its kind")
        for path in self._paths:
            opened = _pyarrow().parquet.ParquetFile(path)
            column = _columns(opened.schema_arrow)[0]
            batches = opened.iter_batches(_ROWS, columns=[f"{column}.bytes"], use_threads=False)
            while True:
                try:
                    batch = next(batches, None)
                except (_pyarrow().ArrowException, OSError) as error:
                    raise OSError(f"{shown(path)} is damaged: {' '.join(str(error).split())}") from None
                if batch is None:
                    break
                for row in batch.column(0).to_pylist():
                    content = (row or {}).get("bytes") or b""
                    spool.write(content)
                    starts.append(starts[-1] + len(content))
        self._file = spool.finish()
        self._closing = weakref.finalize(self, os.close, self._file)
        self._starts = np.array(starts, np.int64)


def _columns(schema: Any) -> tuple[str, str]:
    """The names of the columns of images and labels."""
    found = [next((name for name in names if name in schema.names), None) for names in (_IMAGES, _LABELS)]
    if None in found:
        raise ValueError(f"has the columns {', '.join(schema.names)}, allowed are image (bytes, path) and label")
    return str(found[0]), str(found[1])


def _class_names(schema: Any) -> list[str]:
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[_columns(schema)[1]]["names"]]
    except (TypeError, KeyError, ValueError):
        return []
