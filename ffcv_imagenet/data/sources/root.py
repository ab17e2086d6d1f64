"""What ``--data.root`` names, as the formats look at it."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from ffcv_imagenet.data.sources.members import Members
from ffcv_imagenet.names import shown


@dataclass(frozen=True)
class Root:
    """A file or a folder with a data set.

    Attributes:
        path: of it.
        class_order: ``name`` or ``map``, see ``data.class_order``.
    """

    path: Path
    class_order: str = "name"

    @property
    def name(self) -> str:
        """What the manifest calls the data set."""
        return self.path.resolve().name

    @functools.cached_property
    def paths(self) -> list[Path]:
        """The files that a pattern stands for; else ``path`` alone.

        Raises:
            FileNotFoundError: one of them is not there.
        """
        found = [Path(text) for text in expand(str(self.path))]
        for path in found:
            if not path.exists():
                several = f", one of the {len(found)} that {shown(self.path)} stands for" if len(found) > 1 else ""
                raise FileNotFoundError(f"images not found: {shown(path)}{several}")
        return found

    @functools.cached_property
    def members(self) -> Members | None:
        """The members of an archive; None where it is something else. Listed once."""
        return open_archive(self.path) if self.path.is_file() else None


def expand(pattern: str) -> list[str]:
    """What a pattern in braces stands for: ``{000..146}`` for numbers of as many digits, ``{a,b}`` for either."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    if numbers := re.fullmatch(r"(\d+)\.\.(\d+)", found[1]):
        first, last = numbers.groups()
        words = [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
    elif "," in found[1]:
        words = found[1].split(",")
    else:
        return [pattern]
    return [text for word in words for text in expand(pattern[: found.start()] + word + pattern[found.end() :])]


def open_archive(path: Path) -> Members | None:
    """The members of a tar or ZIP archive; None where it is neither.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or it has a member outside of its folder.
    """
    from ffcv_imagenet.data.sources.tar import TarMembers, is_tar
    from ffcv_imagenet.data.sources.zip import ZipMembers, is_zip

    if is_zip(path):
        return ZipMembers(path)
    return TarMembers(path) if is_tar(path) else None


def need_archive(path: Path) -> Members:
    """As :func:`open_archive`; raises ValueError where it is no archive."""
    members = open_archive(path)
    if members is None:
        raise ValueError(f"{shown(path)} is no tar or ZIP archive")
    return members
