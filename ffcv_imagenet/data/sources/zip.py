"""ZIP archives: their directory as a few numbers per member; then members are read in any order by many threads.

Python's zipfile keeps an object of almost a kilobyte per member, a gigabyte for ImageNet, and has threads wait for each
other.
"""

from __future__ import annotations

import functools
import mmap
import os
import struct
import weakref
import zlib
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ffcv_imagenet.data.sources.members import (
    MAX_FILE_BYTES,
    Members,
    PackedImages,
    arrange,
    class_of_label,
    is_image,
    safe_name,
)
from ffcv_imagenet.data.sources.root import Root
from ffcv_imagenet.data.sources.source import Source
from ffcv_imagenet.data.sources.trees import has_split_archives, open_split_archives, open_tree
from ffcv_imagenet.files import read_lines
from ffcv_imagenet.names import shown

_STORED, _DEFLATED = 0, 8
_END = struct.Struct("<4s4H2LH")
_END_64_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")

#: A field of 32 bits whose value stands in the extra field.
_IN_EXTRA = 0xFFFFFFFF

_UNIX = 3


def is_zip(path: Path) -> bool:
    """Whether a file begins as a ZIP archive does."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\3\4", b"PK\5\6")


class ZipMembers(Members):
    """The files in a ZIP archive; a member that comes twice counts as its last, as in unpacking."""

    def __init__(self, path: Path):
        """Read the archive's directory.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no whole ZIP archive, or it has a member outside of its folder.
        """
        self.place = str(path)
        self.damage: dict[str, str] = {}
        self.folders: list[str] = []
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._closing = weakref.finalize(self, os.close, self._file)
        names: list[str] = []
        columns = array("q"), array("q"), array("q"), array("q"), array("q")
        try:
            size = os.fstat(self._file).st_size
            with mmap.mmap(self._file, size, access=mmap.ACCESS_READ) as content:
                start, count = _directory(content)
                for _ in range(count):
                    name, entry, start = _entry(content, start)
                    safe = safe_name(name)
                    if safe is None:
                        raise ValueError(
                            f"the member {shown(name)} would be unpacked outside of the folder: such an archive is not "
                            "read"
                        )
                    if name.endswith("/"):
                        self.folders.append(safe)
                    else:
                        names.append(safe)
                        for column, value in zip(columns, entry, strict=True):
                            column.append(value)
        except (struct.error, ValueError) as error:
            reason = "is no whole ZIP archive" if isinstance(error, struct.error) else str(error)
            raise ValueError(f"{shown(path)}: {reason}") from None
        kept = np.arange(len(names))
        if len(set(names)) != len(names):
            kept = np.array(sorted({name: number for number, name in enumerate(names)}.values()))
            names = [names[number] for number in kept]
        self.names: list[str] = names
        start_of, packed, self.sizes, method, crc = (np.array(column, np.int64)[kept] for column in columns)
        self._starts, self._packed, self._methods, self._crcs = start_of, packed, method, crc

    def _read(self, number: int) -> bytes:
        start, packed, size = int(self._starts[number]), int(self._packed[number]), int(self.sizes[number])
        method = int(self._methods[number])
        if method not in (_STORED, _DEFLATED):
            raise ValueError(_method_text(method))
        if packed > 2 * MAX_FILE_BYTES:
            raise ValueError(f"takes {packed} bytes of the archive for its {size}")
        try:
            local = os.pread(self._file, _LOCAL.size, start)
            if len(local) != _LOCAL.size or not local.startswith(b"PK\3\4"):
                raise ValueError(f"the archive is damaged at byte {start}")
            *_, name_length, extra_length = _LOCAL.unpack(local)
            content = os.pread(self._file, packed, start + _LOCAL.size + name_length + extra_length)
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror}") from error
        if len(content) != packed:
            raise ValueError("the archive ends in the middle of it")
        if method == _DEFLATED:
            try:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
            except zlib.error as error:
                raise ValueError(f"cannot be unpacked: {error}") from None
        if len(content) != size:
            more = "more than" if len(content) > size else f"{len(content)} bytes instead of"
            raise ValueError(f"unpacks to {more} the {size} bytes that the archive says")
        if zlib.crc32(content) != self._crcs[number]:
            raise ValueError("is damaged: its checksum (CRC-32) is wrong")
        return content


def _directory(content: mmap.mmap) -> tuple[int, int]:
    """Where the central directory begins, and how many entries it has."""
    end = content.rfind(b"PK\5\6", max(0, len(content) - _END.size - 0xFFFF))
    if end < 0:
        raise ValueError("is no whole ZIP archive: its directory, which stands at its end, is missing")
    _, disk, _, _, count, size, start, _ = _END.unpack_from(content, end)
    locator = end - _END_64_LOCATOR.size
    if locator >= 0 and content[locator : locator + 4] == b"PK\6\7":
        *_, at, _ = _END_64_LOCATOR.unpack_from(content, locator)
        signature, _, _, _, disk, _, _, count, size, start = _END_64.unpack_from(content, at)
        if signature != b"PK\6\6":
            raise ValueError("is damaged: its directory is not where it says")
    if disk not in (0, 0xFFFF):
        raise ValueError("is one part of an archive in several parts: join them first (zip -s 0)")
    if start + size > len(content):
        raise ValueError("is no whole ZIP archive: its directory lies behind its end")
    return start, count


def _entry(content: mmap.mmap, at: int) -> tuple[str, tuple[int, int, int, int, int], int]:
    """Name, (start, packed size, size, method, CRC-32), and where the next entry begins."""
    fields = _ENTRY.unpack_from(content, at)
    signature, made_by, _, flags, method, _, _, crc, packed, size, *lengths = fields[:13]
    name_length, extra_length, comment_length = lengths
    start = fields[-1]
    if signature != b"PK\1\2":
        raise ValueError(f"is damaged: no entry of its directory at byte {at}")
    name_at = at + _ENTRY.size
    raw = content[name_at : name_at + name_length]
    extra = content[name_at + name_length : name_at + name_length + extra_length]
    if _IN_EXTRA in (size, packed, start):
        size, packed, start = _long(extra, size, packed, start)
    if flags & 1:
        method = _ENCRYPTED
    in_unicode = flags & 0x800 or made_by >> 8 == _UNIX
    name = os.fsdecode(raw) if in_unicode else raw.decode("cp437").replace("\\", "/")
    return name, (start, packed, size, method, crc), name_at + name_length + extra_length + comment_length


#: Not a method of ZIP.
_ENCRYPTED = -1


def _method_text(method: int) -> str:
    if method == _ENCRYPTED:
        return "is encrypted"
    return f"is packed by method {method}, allowed are stored ({_STORED}) and deflated ({_DEFLATED})"


def _long(extra: bytes, size: int, packed: int, start: int) -> tuple[int, int, int]:
    """The numbers that do not fit into 32 bits, from the extra field of ZIP64."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            values = iter(struct.unpack_from(f"<{length // 8}Q", extra, 4))
            size, packed, start = (next(values, 0) if v == _IN_EXTRA else v for v in (size, packed, start))
            break
        extra = extra[4 + length :]
    return size, packed, start


#: How the archive of a split may be called, behind its split.
ZIP_SUFFIXES = (".zip",)


def _mapped(train_names: dict[int, str], split: str, members: Members, root: Root) -> PackedImages | None:
    """A split whose labels stand in ``<split>_map.txt``; None where there is no such file.

    ``train_names`` are the classes' names by label; the first split, which is train where there is one, gives them.
    """
    path = root.path / f"{split}_map.txt"
    if not path.is_file():
        return None
    label_of: dict[int, int] = {}
    damage = dict(members.damage)
    finder = _Finder(members, split)
    for line_number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition("\t" if "\t" in line else " ")
        where = f"{shown(path)}, line {line_number}"
        if not name or not label.strip().isdecimal():
            raise ValueError(f"{where}: got {shown(line)!r}, allowed is PATH, a tab and a label")
        number = finder.find(name.strip(), where)
        if number is None:
            damage[where] = f"{shown(members.place)} has no member {shown(name.strip())}"
            continue
        if label_of.setdefault(number, int(label)) != int(label):
            raise ValueError(f"{where}: {shown(name)} has label {int(label)} here and {label_of[number]} above")
    by_label: dict[int, list[int]] = {}
    for number, label_number in label_of.items():
        by_label.setdefault(label_number, []).append(number)
    names = _class_names(members, by_label, train_names, str(path))
    train_names.update(train_names or names)
    classes = list(names.values()) if root.class_order == "map" else sorted(names.values())
    return arrange(
        "zip",
        members,
        {names[label]: numbers for label, numbers in by_label.items()},
        lambda number: members.names[number].rpartition("/")[2],
        place=members.place,
        name=root.name,
        classes=classes,
        damage=damage,
    )


def _class_names(members: Members, by_label: dict[int, list[int]], train: dict[int, str], place: str) -> dict[int, str]:
    """For each label the folder of its members.

    Where they have none of their own, or share it with another label: what ``train`` says, else ``class_<label>``.
    """
    numbered = class_of_label(by_label, place)
    folders = {
        label: {members.names[number].rpartition("/")[0].rpartition("/")[2] for number in numbers}
        for label, numbers in sorted(by_label.items())
    }
    found = [next(iter(names)) for names in folders.values() if len(names) == 1]
    if len(set(found)) == len(folders) and "" not in found:
        return dict(zip(folders, found, strict=True))
    if train.keys() == by_label.keys():
        return train
    return numbered


class _Finder:
    """Members by the names that maps give them: as in the archive, without ``<split>/``, or the end of the path."""

    def __init__(self, members: Members, split: str):
        self._members, self._split = members, split
        self._by_name = {name: number for number, name in enumerate(members.names)}
        self._by_last: dict[str, list[int]] | None = None

    def find(self, name: str, where: str) -> int | None:
        for candidate in (name, f"{self._split}/{name}"):
            if candidate in self._by_name:
                return self._by_name[candidate]
        if self._by_last is None:
            self._by_last = {}
            for number, member in enumerate(self._members.names):
                if is_image(member):
                    self._by_last.setdefault(member.rpartition("/")[2], []).append(number)
        same = self._by_last.get(name.rpartition("/")[2], ())
        found = [number for number in same if f"/{self._members.names[number]}".endswith(f"/{name}")]
        if len(found) > 1:
            several = ", ".join(shown(self._members.names[number]) for number in found[:3])
            raise ValueError(f"{where}: {shown(name)} may be any of {len(found)} members: {several}")
        return found[0] if found else None


def looks_like(root: Root) -> bool:
    """Whether it is a ZIP archive, or a folder with those of splits."""
    return is_zip(root.path) if root.path.is_file() else has_split_archives(root, ZIP_SUFFIXES)


def open_splits(root: Root, splits: Sequence[str]) -> dict[str, Source]:
    """The splits of one archive, or of train.zip and val.zip, whose labels a map may give.

    Raises:
        FileNotFoundError: a split that is not there.
        ValueError: no whole archive, or a map that does not fit it.
    """
    if root.path.is_file():
        return open_tree("zip", root, splits)
    return open_split_archives("zip", root, splits, ZIP_SUFFIXES, functools.partial(_mapped, {}))
