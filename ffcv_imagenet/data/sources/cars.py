"""Stanford Cars: two folders of numbered images, and labels in Matlab's files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from ffcv_imagenet.data.sources.files import FolderMembers
from ffcv_imagenet.data.sources.members import Members, arrange, check_classes
from ffcv_imagenet.data.sources.root import Root, need_archive
from ffcv_imagenet.data.sources.source import Source
from ffcv_imagenet.names import shown


class _Split(NamedTuple):
    """Folder (and archive) of the images, and the file of their labels."""

    images: str
    labels: str


SPLITS = {
    "train": _Split("cars_train", "devkit/cars_train_annos.mat"),
    "val": _Split("cars_test", "cars_test_annos_withlabels.mat"),
}
_META = "devkit/cars_meta.mat"


def looks_like(root: Root) -> bool:
    """Whether it is a folder with the images of a split, unpacked or not."""
    return any((root.path / f"{split.images}{end}").exists() for split in SPLITS.values() for end in ("", ".tgz"))


def open_splits(root: Root, splits: Sequence[str]) -> dict[str, Source]:
    """The official training and test images (``val``); labels are in the official order.

    Raises:
        FileNotFoundError: images or labels are not there.
        ValueError: labels that cannot be read, or do not fit the images.
    """
    names = [str(name).replace("/", "-") for name in _read_mat(root, _META)["class_names"]]
    sources: dict[str, Source] = {}
    for split in splits:
        folder, labels = SPLITS[split]
        members: Members
        if (root.path / folder).is_dir():
            members = FolderMembers.below(root.path / folder)
        elif (root.path / f"{folder}.tgz").is_file():
            members = need_archive(root.path / f"{folder}.tgz")
        else:
            raise FileNotFoundError(f"{shown(root.path)} has no {folder} and no {folder}.tgz")
        there = {name.rpartition("/")[2]: number for number, name in enumerate(members.names)}
        by_class: dict[str, list[int]] = {name: [] for name in names}
        damage = dict(members.damage)
        for row in _read_mat(root, labels)["annotations"]:
            if "class" not in row.dtype.names or not 1 <= int(row["class"]) <= len(names):
                raise ValueError(f"{labels}: allowed are the classes 1 to {len(names)}")
            file, name = str(row["fname"]).rpartition("/")[2], names[int(row["class"]) - 1]
            if file in there:
                by_class[name].append(there[file])
            else:
                damage[file] = f"{labels} has it, {shown(members.place)} has not"
        sources[split] = arrange(
            "cars",
            members,
            by_class,
            lambda number, members=members: members.names[number].rpartition("/")[2],  # type: ignore[misc]
            place=members.place,
            name=root.name,
            classes=names,
            damage=damage,
        )
    check_classes(sources)
    return sources


def _read_mat(root: Root, name: str) -> Any:
    """A file of the devkit, unpacked or in car_devkit.tgz."""
    import scipy.io

    place = root.path / name
    last = name.rpartition("/")[2]
    if place.is_file():
        content = place.read_bytes()
    elif (root.path / "car_devkit.tgz").is_file() and "/" in name:
        place = root.path / "car_devkit.tgz"
        members = need_archive(place)
        content = members.read(members.need(last))
    else:
        raise FileNotFoundError(f"{shown(root.path)} has no {name}")
    try:
        return scipy.io.loadmat(io.BytesIO(content), squeeze_me=True)
    except Exception as error:  # scipy raises almost anything on bad bytes
        raise ValueError(f"{shown(place)}: {last} cannot be read: {error!r}") from None
