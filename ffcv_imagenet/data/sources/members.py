"""Images that are members of archives: from what an archive lists to samples in the order of the unpacked folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ffcv_imagenet.data.sources.source import IMAGE_EXTENSIONS, Source, class_difference, listing_digest
from ffcv_imagenet.names import shown

#: No image file is larger; what an archive says to be larger is not read (it may unpack to more than the memory).
MAX_FILE_BYTES = 1 << 28


class Members(ABC):
    """The files in one or more archives.

    Attributes:
        place: path of the archive, for messages.
        names: of the files, folders separated by ``/``, without a leading ``./``.
        sizes: [files] int64, bytes of each.
        folders: names of folders, which may be empty.
        damage: what cannot be listed, with the reason.
    """

    place: str
    names: Sequence[str]
    sizes: np.ndarray
    folders: Sequence[str] = ()
    damage: Mapping[str, str]

    def read(self, number: int) -> bytes:
        """Content of a file; any number of threads may call it. Raises ValueError with the reason if that fails."""
        if self.sizes[number] > MAX_FILE_BYTES:
            raise ValueError(
                f"has {self.sizes[number]} bytes in the archive, allowed are {MAX_FILE_BYTES}; if it is genuine, "
                f"unpack the archive and give the folder by --data.root"
            )
        return self._read(number)

    @abstractmethod
    def _read(self, number: int) -> bytes:
        """As :meth:`read`, of at most MAX_FILE_BYTES."""

    def read_text(self, number: int) -> str:
        """Content of a text file; raises ValueError with the file's name where it cannot be read."""
        try:
            return self.read(number).decode("utf-8-sig")
        except ValueError as error:
            raise ValueError(f"{shown(self.where(number))}: {error}") from None

    def where(self, number: int) -> str:
        """A file as messages name it."""
        return f"{self.place}: {self.names[number]}"

    def find(self, name: str) -> int | None:
        """Number of the only file of that name, in whatever folder; None where there is none.

        Raises:
            ValueError: there are several.
        """
        found = [number for number, member in enumerate(self.names) if member == name or member.endswith(f"/{name}")]
        if len(found) > 1:
            raise ValueError(f"{shown(self.where(found[0]))}: there is another one, {shown(self.names[found[1]])}")
        return found[0] if found else None

    def need(self, name: str) -> int:
        """As :meth:`find`; raises ValueError where there is none."""
        number = self.find(name)
        if number is None:
            raise ValueError(f"{shown(self.place)} has no member {shown(name)}")
        return number


@dataclass(frozen=True, kw_only=True)
class PackedImages(Source):
    """A split whose images are members of archives.

    Attributes:
        members: of the archives.
        chosen: [N] int64, the member of each sample.
    """

    members: Members
    chosen: np.ndarray

    def read(self, number: int) -> bytes:
        """Content of the member of sample ``number``; raises ValueError with the reason where it cannot be read."""
        return self.members.read(int(self.chosen[number]))

    def where(self, number: int) -> str:
        """Archive and member of sample ``number``."""
        return self.members.where(int(self.chosen[number]))


def is_image(name: str) -> bool:
    """Whether torchvision's ImageFolder takes a file for an image, by its name."""
    return name.lower().endswith(IMAGE_EXTENSIONS)


def safe_name(name: str) -> str | None:
    """A member's name without a leading ``./``; None where unpacking it would write outside of the folder."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return None if name.startswith("/") or ".." in parts else "/".join(parts)


def arrange(
    format: str,
    members: Members,
    by_class: Mapping[str, Sequence[int]],
    name_in_class: Callable[[int], str],
    *,
    place: str,
    name: str,
    classes: Sequence[str] | None = None,
    names: Mapping[str, str] | None = None,
    damage: Mapping[str, str] | None = None,
    content: str = "",
) -> PackedImages:
    """A split from the members of each class, in the order that they would have in a folder.

    Args:
        format: see :class:`Source`.
        members: of the archives.
        by_class: numbers of each class's members.
        name_in_class: a member's path in its class's folder.
        place: see :class:`Source`.
        name: see :class:`Source`.
        classes: their order; None: sorted by name, as in a folder.
        names: what people call the classes, where that is known of all.
        damage: see :class:`Source`; None: that of ``members``.
        content: tells other images, where the sizes of files do not.

    Raises:
        ValueError: no class, or one without images.
    """
    classes = sorted(by_class) if classes is None else classes
    if not classes:
        raise ValueError(f"{shown(place)} has no images (names must end in {', '.join(IMAGE_EXTENSIONS)})")
    files: list[str] = []
    chosen: list[np.ndarray] = []
    for name_of_class in classes:
        numbers = by_class.get(name_of_class, ())
        if not numbers:
            raise ValueError(
                f"class {shown(name_of_class)} of {shown(place)} has no images (names must end in "
                f"{', '.join(IMAGE_EXTENSIONS)})"
            )
        paths = sorted((*name_in_class(number).rpartition("/")[::2], number) for number in numbers)
        files += ["/".join(filter(None, (name_of_class, folder, file))) for folder, file, _ in paths]
        chosen.append(np.array([number for *_, number in paths], np.int64))
    order = np.concatenate(chosen) if chosen else np.empty(0, np.int64)
    listed = list(zip(files, members.sizes[order].tolist(), strict=True))
    return PackedImages(
        format=format,
        place=place,
        name=name,
        classes=tuple(classes),
        files=files,
        labels=np.repeat(np.arange(len(classes)), [len(numbers) for numbers in chosen]).astype(np.int64),
        digest=listing_digest(classes, listed + ([(content, 0)] if content else [])),
        class_names=tuple(names[c] for c in classes) if names and set(classes) <= set(names) else (),
        damage=members.damage if damage is None else damage,
        members=members,
        chosen=order,
    )


def class_folders(
    format: str, members: Members, top: str, *, place: str, name: str, names: Mapping[str, str] | None = None
) -> PackedImages:
    """A split in the layout ``top/<class>/**/<image>``.

    Raises:
        ValueError: a class without images, or no class at all.
    """
    start = f"{top}/" if top else ""
    by_class: dict[str, list[int]] = {}
    for folder in members.folders:
        if folder.startswith(start) and len(folder) > len(start):
            by_class.setdefault(folder[len(start) :].split("/", 1)[0], [])
    for number, member in enumerate(members.names):
        if member.startswith(start):
            name_of_class, slash, _ = member[len(start) :].partition("/")
            if slash:
                of_class = by_class.setdefault(name_of_class, [])
                if is_image(member):
                    of_class.append(number)
    if not by_class:
        raise ValueError(f"no class folders in {shown(place)} (expected is <class>/<image>)")

    def name_in_class(number: int) -> str:
        return members.names[number][len(start) :].partition("/")[2]

    return arrange(format, members, by_class, name_in_class, place=place, name=name, names=names)


def tops_of_splits(members: Members, splits: Iterable[str]) -> dict[str, str]:
    """The folder ``[.../]<split>`` of each split that is there: one that has class folders.

    Raises:
        ValueError: two folders could be it.
    """
    splits = set(splits)
    found: dict[str, set[str]] = {}
    for folder in {member.rpartition("/")[0] for member in members.names if is_image(member)}:
        parts = folder.split("/")
        for depth, part in enumerate(parts[:-1]):
            if part in splits and parts[0] != "__MACOSX":
                found.setdefault(part, set()).add("/".join(parts[: depth + 1]))
                break
    for split, tops in found.items():
        if len(tops) > 1:
            first, second = sorted(tops)[:2]
            raise ValueError(
                f"{shown(members.place)} has two folders for {split}, {shown(first)} and {shown(second)}: "
                "unpack the one that is meant, and give its folder"
            )
    return {split: next(iter(tops)) for split, tops in found.items()}


def top_of_classes(members: Members) -> str:
    """The folder that has the class folders, in an archive of a single split: the top, or the only folder there."""
    folders = {member.rpartition("/")[0] for member in members.names if is_image(member)}
    folders = {folder for folder in folders if folder.split("/")[0] != "__MACOSX"}
    top = ""
    while len(first := {folder[len(top) :].lstrip("/").split("/")[0] for folder in folders}) == 1:
        deeper = f"{top}/{first.pop()}".lstrip("/")
        if deeper in folders or not any(folder.startswith(f"{deeper}/") for folder in folders):
            break
        top = deeper
    return top


def class_of_label(labels: Iterable[int], place: str) -> dict[int, str]:
    """Names for classes that have none but a number.

    Raises:
        ValueError: the labels are not 0, 1, 2 ... without a gap.
    """
    found = sorted(set(labels))
    if found != list(range(len(found))):
        missing = next((label for label in range(len(found)) if label not in set(found)), len(found))
        low, high = found[0], found[-1]
        raise ValueError(f"{shown(place)}: labels are {low} to {high}, allowed are 0, 1, 2 ...; {missing} is missing")
    width = len(str(len(found) - 1))
    return {label: f"class_{label:0{width}}" for label in found}


def check_classes(sources: Mapping[str, Source], train: Source | None = None) -> None:
    """Labels must mean the same in all splits.

    Raises:
        ValueError: a split whose classes are not those of train.
    """
    train = train or sources.get("train")
    for source in sources.values():
        if train is not None and source.classes != train.classes:
            if set(source.classes) == set(train.classes):
                raise ValueError(f"{shown(source.place)} must have the classes of {shown(train.place)} in their order")
            raise ValueError(
                f"{shown(source.place)} must have the classes of {shown(train.place)}: "
                f"{class_difference(source.classes, train.classes)}"
            )
