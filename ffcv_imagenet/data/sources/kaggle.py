"""ImageNet as Kaggle's competition gives it: a folder per training class, flat validation images, labels in a CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence

from ffcv_imagenet.data.sources.files import FolderMembers
from ffcv_imagenet.data.sources.members import Members, arrange, check_classes, class_folders, is_image
from ffcv_imagenet.data.sources.root import Root, need_archive
from ffcv_imagenet.data.sources.source import Source
from ffcv_imagenet.files import read_lines
from ffcv_imagenet.names import shown

#: Where the images are, in the archive and unpacked.
TOP = "ILSVRC/Data/CLS-LOC"

#: What the competition's archive is called, by age.
ARCHIVES = ("imagenet-object-localization-challenge.zip", "imagenet_object_localization_patched2019.tar.gz")

_SOLUTION, _SYNSETS = "LOC_val_solution.csv", "LOC_synset_mapping.txt"


def looks_like(root: Root) -> bool:
    """Whether it is the competition's archive, or a folder with it or with what was in it."""
    if root.path.is_dir():
        return (root.path / TOP).is_dir() or any((root.path / archive).is_file() for archive in ARCHIVES)
    return root.members is not None and any(name.startswith(f"{TOP}/") for name in root.members.names)


def open_splits(root: Root, splits: Sequence[str]) -> dict[str, Source]:
    """The splits of the competition.

    Raises:
        FileNotFoundError: the labels of the validation images are not there.
        ValueError: the labels do not fit the images.
    """
    top = f"{TOP}/"
    members: Members
    if root.path.is_file():
        assert root.members is not None
        members = root.members
    elif (root.path / TOP).is_dir():
        members, top = FolderMembers.below(root.path / TOP), ""
    else:
        members = need_archive(next(path for a in ARCHIVES if (path := root.path / a).is_file()))
    names = _synset_names(root, members)
    sources: dict[str, Source] = {}
    if "train" in splits:
        place = f"{members.place}: {top}train" if top else f"{members.place}/train"
        sources["train"] = class_folders("kaggle", members, f"{top}train", place=place, name=root.name, names=names)
    if "val" in splits:
        place = f"{members.place}: {top}val" if top else f"{members.place}/val"
        sources["val"] = _open_val(root, members, f"{top}val/", place, names)
    check_classes(sources)
    return sources


def _open_val(root: Root, members: Members, top: str, place: str, names: dict[str, str]) -> Source:
    text = _text(root, members, _SOLUTION)
    if text is None:
        raise FileNotFoundError(
            f"{shown(root.path)} has no {_SOLUTION}, which has the labels of the validation images (put it next to it)"
        )
    there = {
        name[len(top) :]: number
        for number, name in enumerate(members.names)
        if name.startswith(top) and "/" not in name[len(top) :] and is_image(name)
    }
    by_class: dict[str, list[int]] = {}
    damage = dict(members.damage)
    try:
        rows = list(csv.DictReader(text.split("\n")))
    except csv.Error as error:
        raise ValueError(f"{_SOLUTION}: {error}") from None
    for line, row in enumerate(rows, 2):
        image, label = row.get("ImageId"), (row.get("PredictionString") or "").split()
        if not image or not label:
            raise ValueError(f"{_SOLUTION}, line {line}: allowed are the columns ImageId and PredictionString")
        number = there.pop(f"{image}.JPEG", None)
        by_class.setdefault(label[0], [])
        if number is None:
            damage[f"{_SOLUTION}, line {line}"] = f"{shown(place)} has no image {shown(image)}.JPEG"
        else:
            by_class[label[0]].append(number)
    for name, number in there.items():
        damage[members.where(number)] = f"{_SOLUTION} has no label for {shown(name)}"
    return arrange(
        "kaggle",
        members,
        by_class,
        lambda number: members.names[number].rpartition("/")[2],
        place=place,
        name=root.name,
        names=names,
        damage=damage,
    )


def _synset_names(root: Root, members: Members) -> dict[str, str]:
    lines = (_text(root, members, _SYNSETS) or "").splitlines()
    return {synset: words for synset, _, words in (line.strip().partition(" ") for line in lines) if words}


def _text(root: Root, members: Members, name: str) -> str | None:
    """A text file in the archive, or next to it; None where there is none."""
    for folder in (root.path, root.path.parent):
        if (folder / name).is_file():
            return "\n".join(read_lines(folder / name))
    number = members.find(name)
    return None if number is None else members.read_text(number)
