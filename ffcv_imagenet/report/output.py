"""Files that the user asked for."""

from __future__ import annotations

from pathlib import Path

from ffcv_imagenet.files import write_atomically


def save(path: Path, content: bytes) -> None:
    """Write a file that the user named."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"folder not found: {path.parent}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, allowed is a file name")
    if path.exists() and not path.is_file():  # A pipe or a device is written to; a file would take its place.
        path.write_bytes(content)
    else:
        write_atomically(path.resolve(), content)  # What a link points to, not the link.
