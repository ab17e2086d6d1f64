"""ImageNet (ILSVRC 2012) as it is downloaded: a tar of a tar per class, a flat tar, and the devkit's labels."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ffcv_imagenet.data.sources.members import arrange, check_classes, class_folders, is_image
from ffcv_imagenet.data.sources.root import Root, need_archive
from ffcv_imagenet.data.sources.source import Source
from ffcv_imagenet.data.sources.tar import TarMembers
from ffcv_imagenet.names import shown

ARCHIVES = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
DEVKIT = "ILSVRC2012_devkit_t12"
_TRUTH, _META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"


class _Devkit(NamedTuple):
    """What the devkit says: each validation image's class (a synset such as n01440764), and the classes' names."""

    val_classes: list[str]
    names: dict[str, str]


def looks_like(root: Root) -> bool:
    """Whether it is a folder with one of the two archives."""
    return any((root.path / archive).is_file() for archive in ARCHIVES.values())


def open_splits(root: Root, splits: Sequence[str]) -> dict[str, Source]:
    """The splits in the two archives.

    Raises:
        FileNotFoundError: an archive or the devkit is not there.
        ValueError: one of them is not what its name says.
    """
    if missing := [ARCHIVES[split] for split in splits if not (root.path / ARCHIVES[split]).is_file()]:
        raise FileNotFoundError(f"{shown(root.path)} has no {' and no '.join(missing)}")
    devkit = _read_devkit(root.path, needed="val" in splits)
    sources: dict[str, Source] = {}
    if "train" in splits:
        members = TarMembers(root.path / ARCHIVES["train"])
        names = devkit.names if devkit else None
        sources["train"] = class_folders("imagenet", members, "", place=members.place, name=root.name, names=names)
    if "val" in splits:
        assert devkit is not None
        sources["val"] = _open_val(root, devkit)
    check_classes(sources)
    return sources


def _open_val(root: Root, devkit: _Devkit) -> Source:
    members = TarMembers(root.path / ARCHIVES["val"])
    by_class: dict[str, list[int]] = {name: [] for name in devkit.val_classes}
    count = len(devkit.val_classes)
    for number, member in enumerate(members.names):
        if not is_image(member):
            continue
        found = re.fullmatch(r"ILSVRC2012_val_(\d{8})\.JPEG", member.rpartition("/")[2])
        if found is None or not 1 <= int(found[1]) <= count:
            raise ValueError(
                f"{shown(members.where(number))}: allowed are ILSVRC2012_val_00000001.JPEG to "
                f"ILSVRC2012_val_{count:08}.JPEG"
            )
        by_class[devkit.val_classes[int(found[1]) - 1]].append(number)
    damage = dict(members.damage)
    if (there := sum(map(len, by_class.values()))) != count:
        damage.setdefault(members.place, f"it has {there} of {count} images")
    return arrange(
        "imagenet",
        members,
        by_class,
        lambda number: members.names[number].rpartition("/")[2],
        place=members.place,
        name=root.name,
        names=devkit.names,
        damage=damage,
    )


def _read_devkit(folder: Path, needed: bool) -> _Devkit | None:
    """Labels and names; None where there is no devkit and none is needed."""
    place = folder / f"{DEVKIT}.tar.gz"
    if place.is_file():
        members = need_archive(place)
        truth, meta = (members.read(members.need(f"data/{file}")) for file in (_TRUTH, _META))
    elif (folder / DEVKIT / "data").is_dir():
        place = folder / DEVKIT / "data"
        truth, meta = ((place / file).read_bytes() for file in (_TRUTH, _META))
    elif needed:
        raise FileNotFoundError(f"{shown(folder)} has no {place.name}, which has the labels of the validation images")
    else:
        return None
    try:
        synsets = _read_synsets(meta)
        by_id = {number: synset for number, synset, _ in synsets}
        val_classes = [by_id[int(line)] for line in truth.split()]
    except Exception as error:  # scipy raises almost anything on bad bytes
        raise ValueError(f"{shown(place)}: {_META} and {_TRUTH} are not those of ImageNet: {error!r}") from None
    return _Devkit(val_classes, {synset: words for _, synset, words in synsets})


def _read_synsets(meta: bytes) -> list[tuple[int, str, str]]:
    """Number, synset and words of the classes in a ``meta.mat``, without the synsets above them."""
    import scipy.io

    rows: Any = scipy.io.loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
    classes = [row for row in rows if int(row["num_children"]) == 0]
    return [(int(row["ILSVRC2012_ID"]), str(row["WNID"]), str(row["words"])) for row in classes]
