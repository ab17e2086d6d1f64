"""Tar archives: where each member lies, from one pass over the headers; then members are read in any order.

Python's tarfile takes a cut or damaged archive for its end, and keeps an object per member; here damage is named, and a
member costs its name and a few numbers. A tar inside of a tar is listed like a folder of its name.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import tempfile
import weakref
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from ffcv_imagenet.data.sources.members import Members, safe_name
from ffcv_imagenet.data.sources.root import Root
from ffcv_imagenet.data.sources.source import Source
from ffcv_imagenet.data.sources.spool import Spool
from ffcv_imagenet.data.sources.trees import has_split_archives, open_split_archives, open_tree
from ffcv_imagenet.names import shown

_BLOCK = 512

#: The first bytes of compressed files, and what reads them.
_COMPRESSED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}

#: Longest name or extended header that is believed, in bytes.
_MAX_HEADER = 1 << 20

_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)

#: How the keys of extended headers begin that tell where a member is and how it is called.
_TELLING = ("path", "linkpath", "size", "GNU.sparse.")

#: What the start of a member says that cannot be read.
_LINK, _SPARSE = -1, -2
_REASONS = {
    _LINK: "is a link in the archive, which is not followed",
    _SPARSE: "is stored as a sparse file (tar -S), which is not read; unpack the archive and give the folder",
}


def is_tar(path: Path) -> bool:
    """Whether a file begins as a tar archive does, compressed or not."""
    try:
        with _opened(path) as file:
            block = file.read(_BLOCK)
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (OSError, EOFError, tarfile.HeaderError, lzma.LZMAError, zlib.error):
        return False
    return True


class TarMembers(Members):
    """The regular files in a tar archive; a member that comes twice counts as its last, as in unpacking."""

    def __init__(self, path: Path):
        """List the archive; a compressed one is unpacked to a temporary file first.

        Raises:
            OSError: it cannot be read, or there is no room for the temporary file.
            ValueError: it is no tar archive, or it has a member outside of its folder.
        """
        self.place = str(path)
        self.damage: dict[str, str] = {}
        self._file = self._seekable(path)
        self._closing = weakref.finalize(self, os.close, self._file)
        names: list[str] = []
        starts, sizes = array("q"), array("q")
        folders: list[str] = []
        links: dict[int, str] = {}
        for member in self._scan(0, os.fstat(self._file).st_size, ""):
            if member.is_folder:
                folders.append(member.name)
                continue
            if member.link is not None:
                links[len(names)] = member.link
            names.append(member.name)
            starts.append(member.start)
            sizes.append(member.size)
        if not names and not folders:
            raise ValueError(f"{shown(path)} is no tar archive, or it is empty{self._reasons()}")
        kept = self._last_of_each(names)
        place_of = {names[number]: number for number in kept} if links else {}
        for number, target in links.items():  # a hard link is another name of an earlier member
            original = place_of.get(target, number)
            starts[number], sizes[number] = starts[original], sizes[original]
        self.names: list[str] = [names[number] for number in kept] if len(kept) != len(names) else names
        self.starts = np.array(starts, np.int64)[kept]
        self.sizes = np.array(sizes, np.int64)[kept]
        self.folders = folders

    def _read(self, number: int) -> bytes:
        start, size = int(self.starts[number]), int(self.sizes[number])
        if start < 0:
            raise ValueError(_REASONS[start])
        try:
            content = os.pread(self._file, size, start)
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror}") from error
        if len(content) != size:
            raise ValueError("the archive ends in the middle of it")
        return content

    def _seekable(self, path: Path) -> int:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        magic = os.pread(file, 6, 0)
        if not any(magic.startswith(start) for start in _COMPRESSED):
            return file
        os.close(file)
        print(f"unpacking {shown(path)} to one temporary file in {shown(tempfile.gettempdir())} (TMPDIR)", flush=True)
        spool = Spool(self.place)
        with _opened(path) as packed:
            while True:
                try:
                    block = packed.read1(1 << 20)
                except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
                    self.damage[self.place] = f"it cannot be unpacked to its end: {error}"
                    break
                if not block:
                    break
                spool.write(block)
        return spool.finish()

    def _reasons(self) -> str:
        return "".join(f" ({reason})" for reason in self.damage.values())

    def _last_of_each(self, names: list[str]) -> np.ndarray:
        if len(set(names)) == len(names):
            return np.arange(len(names))
        return np.array(sorted({name: number for number, name in enumerate(names)}.values()))

    def _scan(self, start: int, end: int, folder: str) -> Iterator[_Member]:
        """The members between two places of the file, those of tars inside included."""
        what = f"{self.place}: {folder}" if folder else self.place
        at = start
        given: dict[str, str] = {}  # of the next member, by the extended headers in front of it
        while True:
            block = os.pread(self._file, min(_BLOCK, max(0, end - at)), at)
            if not block.strip(b"\0") and len(block) == _BLOCK:
                return
            try:
                header = _read_header(block)
            except tarfile.HeaderError as error:
                cut = "it ends without the mark of an end, so that it may be cut off"
                if self.place not in self.damage:  # a compressed one has told already
                    self.damage[what] = cut if len(block) < _BLOCK else f"it is damaged at byte {at - start}: {error}"
                return
            at += _BLOCK
            content, size = at, header.size
            if size < 0:
                self.damage[what] = f"it is damaged at byte {at - _BLOCK - start}: a member of {size} bytes"
                return
            if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE):
                if header.size > _MAX_HEADER:
                    self.damage[what] = f"it is damaged at byte {content - start}: a name of {header.size} bytes"
                    return
                at += _blocks(size)
                text = os.pread(self._file, size, content)
                if header.type == tarfile.XHDTYPE:
                    given |= {key: value for key, value in _extended(text).items() if key.startswith(_TELLING)}
                else:
                    key = "path" if header.type == tarfile.GNUTYPE_LONGNAME else "linkpath"
                    given[key] = os.fsdecode(text.split(b"\0")[0])
                continue
            if header.type in (tarfile.XGLTYPE, b"V", b"M", b"D"):  # nothing about a member
                at += _blocks(size)
                continue
            if header.type in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE):
                size = 0  # whatever the header says
            elif given.get("size", "").isdecimal():
                size = int(given["size"])
            more = block[482] if header.type == tarfile.GNUTYPE_SPARSE else 0
            while more:  # places of its parts
                block = os.pread(self._file, _BLOCK, at)
                more = block[504] if len(block) == _BLOCK else 0
                at += _BLOCK
            at += _blocks(size)
            sparse = header.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in given)
            stated = given.get("GNU.sparse.name") or given.get("path", header.name)
            name = safe_name(stated)
            if name is None:
                raise ValueError(
                    f"{shown(what)}: the member {shown(stated)} would be unpacked outside of the folder: such an "
                    "archive is not read"
                )
            path = f"{folder}{name}"
            if header.type == tarfile.DIRTYPE:
                yield _Member(path, 0, 0, True)
            elif header.type == tarfile.LNKTYPE:
                target = safe_name(given.get("linkpath", header.linkname))
                yield _Member(path, _LINK, 0, False, f"{folder}{target}")
            elif header.type == tarfile.SYMTYPE:
                yield _Member(path, _LINK, 0)
            elif sparse:
                if name.endswith(".tar"):  # the images in it would be missing without a word
                    self.damage[f"{self.place}: {path}"] = _REASONS[_SPARSE]
                yield _Member(path, _SPARSE, 0)
            elif header.type in _REGULAR and name.endswith(".tar") and not folder:  # one in one, not more
                yield from self._scan(content, min(at, end), f"{path.removesuffix('.tar')}/")
            elif header.type in _REGULAR:
                yield _Member(path, content, size)
            given = {}


class _Member(NamedTuple):
    """A member of a tar: where its bytes begin in the file (negative: see _REASONS), and how many they are."""

    name: str
    start: int
    size: int
    is_folder: bool = False
    link: str | None = None


class _Header(NamedTuple):
    """What a header says of a member."""

    type: bytes
    name: str
    size: int
    linkname: str = ""


def _read_header(block: bytes) -> _Header:
    """Read a header as tarfile does; raises tarfile.HeaderError."""
    plain = _read_plain(block)
    if plain is not None:
        return plain
    header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    return _Header(header.type, header.name, header.size, header.linkname)


def _read_plain(block: bytes) -> _Header | None:
    """The header of a regular file, or an extended one, as nearly all are written; None for any other block.

    In a quarter of tarfile's time.
    """
    kind = block[156:157]
    if len(block) != _BLOCK or kind not in (tarfile.REGTYPE, tarfile.XHDTYPE) or block[257:262] != b"ustar":
        return None
    try:
        size, checksum = (int(field.partition(b"\0")[0], 8) for field in (block[124:136], block[148:156]))
    except ValueError:
        return None
    if size < 0 or sum(block) - sum(block[148:156]) + 8 * ord(" ") != checksum:
        return None
    name, prefix = block[:100].partition(b"\0")[0], block[345:500].partition(b"\0")[0]
    return _Header(kind, os.fsdecode(prefix + b"/" + name if prefix else name), size)


def _blocks(size: int) -> int:
    """Bytes that ``size`` bytes take in a tar."""
    return -(-size // _BLOCK) * _BLOCK  # rounded up


def _extended(text: bytes) -> dict[str, str]:
    """The records ``LENGTH KEY=VALUE\\n`` of an extended header."""
    found = {}
    while text:
        length, _, _ = text.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(text):
            break
        key, _, value = text[len(length) + 1 : int(length) - 1].partition(b"=")
        found[os.fsdecode(key)] = os.fsdecode(value)
        text = text[int(length) :]
    return found


def _opened(path: Path) -> io.BufferedIOBase:
    with path.open("rb") as file:
        magic = file.read(6)
    for start, opener in _COMPRESSED.items():
        if magic.startswith(start):
            return cast(io.BufferedIOBase, opener(path, "rb"))
    return path.open("rb")


#: How the archive of a split may be called, behind its split.
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")


def looks_like(root: Root) -> bool:
    """Whether it is a tar archive, or a folder with those of splits."""
    return is_tar(root.path) if root.path.is_file() else has_split_archives(root, TAR_SUFFIXES)


def open_splits(root: Root, splits: Sequence[str]) -> dict[str, Source]:
    """The splits of one archive, or of train.tar and val.tar.

    Raises:
        FileNotFoundError: a split that is not there.
        ValueError: no tar archive, or not of class folders.
    """
    if root.path.is_file():
        return open_tree("tar", root, splits)
    return open_split_archives("tar", root, splits, TAR_SUFFIXES)
