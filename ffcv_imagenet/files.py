"""Files that appear whole or not at all, written by one process at a time; JSON files whose errors name them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ffcv_imagenet.names import shown

#: What a file system without locks answers: there is nothing to hold then.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class WrittenFile(io.FileIO):
    """An unbuffered file to write and read whose errors name it: ``cannot write FILE: No space left on device``."""

    def __init__(self, path: Path, shown_as: Path):
        """Open ``path``, which is made where missing; errors name ``shown_as``."""
        self._shown_as = shown_as
        super().__init__(path, "r+b", opener=lambda name, flags: os.open(name, flags | os.O_CREAT, 0o666))

    def write(self, data: Any) -> int:
        """Write as much as the system takes."""
        with self._naming():
            return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        """Cut the file."""
        with self._naming():
            return super().truncate(size)

    def sync(self) -> None:
        """Wait until all that was written is on the disk."""
        with self._naming():
            os.fsync(self.fileno())

    def close(self) -> None:
        """Close the file, which is when some file systems first say that it is not written."""
        with self._naming():
            super().close()

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(f"cannot write {shown(self._shown_as)}: {error.strerror}") from error


class BufferedFile(io.BufferedRandom):
    """A :class:`WrittenFile` with a buffer."""

    raw: WrittenFile

    def sync(self) -> None:
        """Wait until all that was written is on the disk."""
        self.flush()
        self.raw.sync()


@contextlib.contextmanager
def exclusive_file(path: Path, shown_as: Path | None = None) -> Iterator[WrittenFile]:
    """Open an empty file that no other process is writing; after an exception it is removed.

    A lock ends with its process, however that ends.

    Raises:
        FileExistsError: another process is writing it, or has just done so.
        OSError: it cannot be written; names ``shown_as`` (``path`` where that is not given).
    """
    file = WrittenFile(path, shown_as or path)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(f"another process is writing {shown(path)}") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        if not _is_at(file, path):  # It has got its final name between opening and locking.
            raise FileExistsError(f"another process has just written {shown(path)}")
        try:
            file.truncate(0)  # what a killed process left
            yield file
        except BaseException:  # Ctrl-C too
            if _is_at(file, path):
                path.unlink()
            raise
    except BaseException:
        with contextlib.suppress(OSError):  # The first error counts.
            file.close()
        raise
    file.close()


def _is_at(file: io.FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BufferedFile]:
    """Open a file to write (and read) that gets its name at the end of the ``with`` block, when it is safe on the disk.

    Until then, and after an exception, the name holds what it held before, also after a power cut. Sync all of several
    files that belong together before the first gets its name: a full disk shows by then.

    Raises:
        FileExistsError: another process is writing it.
        OSError: it cannot be written; names it.
    """
    partial = partial_of(path)
    with exclusive_file(partial, path) as file:
        buffered = BufferedFile(file)
        yield buffered
        buffered.sync()
        partial.replace(path)


def partial_of(path: Path) -> Path:
    """What :func:`atomic_file` writes until the file is whole; a killed process leaves it."""
    return path.with_name(f".{path.name}.partial")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file; see :func:`atomic_file`."""
    with atomic_file(path) as file:
        file.write(content)


def read_lines(file: Path) -> list[str]:
    """The lines of a text file, without their ends.

    Raises:
        ValueError: its bytes are no UTF-8; names the file.
    """
    try:
        return file.read_text(encoding="utf-8-sig").split("\n")  # splitlines() takes other characters for ends, too
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown(file)} is no text in UTF-8: {error}") from None


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
