"""Files that appear whole or not at all, and JSON files whose errors name them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write (and read) that gets its name at the end of the ``with`` block, when it is safe on the disk.

    Until then, and after an exception, the name holds what it held before, also after a power cut.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file; see :func:`atomic_file`."""
    with atomic_file(path) as file:
        file.write(content)


def read_json_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ValueError: damaged, or something else than an object; names the file.
    """
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: allowed is a JSON object, got {content!r:.80}")
    return content
