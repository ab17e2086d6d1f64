"""Every form in which images come gives the .beton of the unpacked folder."""

import csv
import io
import json
import os
import pickle
import re
import resource
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from images import draw, draw_folder
from PIL import Image

from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.sources import cifar
from ffcv_imagenet.data.sources import members as archive_members
from ffcv_imagenet.data.sources.files import FolderMembers
from ffcv_imagenet.data.sources.find import describe, find_sources
from ffcv_imagenet.data.sources.members import arrange
from ffcv_imagenet.data.sources.tar import TarMembers
from ffcv_imagenet.data.sources.zip import ZipMembers
from ffcv_imagenet.data.write.parameters import resolve_parameters
from ffcv_imagenet.data.write.splits import write_sources, write_splits

BOTH = ("train", "val")
PARAMETERS = resolve_parameters(mode="proportion", page_size_mib=2)
SYNSETS = ("n01440764", "n01443537", "n02084071")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """An image folder as ImageNet's; train images are called by their class, those of val by a number."""
    root = tmp_path_factory.mktemp("images")
    seed = 0
    for split, count in (("train", 4), ("val", 2)):
        for label, name in enumerate(SYNSETS):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                file = f"{name}_{number * 7 + 3}" if split == "train" else f"ILSVRC2012_val_{3 * number + label + 1:08}"
                Image.fromarray(draw(24, 32, seed)).save(root / split / name / f"{file}.JPEG", quality=90)
                seed += 1
    return root


@pytest.fixture(scope="module")
def expected(images, tmp_path_factory):
    """What the writer makes of the folder."""
    out = tmp_path_factory.mktemp("expected")
    write_splits(images, out, BOTH, PARAMETERS, num_workers=1)
    return out


def write(root, out, format="auto", splits=BOTH, on_error="fail", **options):
    sources = find_sources(Path(root), splits, format, **options)
    write_sources(sources, out, PARAMETERS, num_workers=2, on_error=on_error)
    return {split: Manifest.read(out / f"{split}.beton") for split in splits}


def assert_same(root, expected, out, format, same_digest=True, chosen="auto", **options):
    """``auto`` finds the format, and the files are those of the folder, byte for byte."""
    for split, manifest in write(root, out, chosen, **options).items():
        assert manifest.source_format == format
        for end in ("", ".mcu"):
            assert (out / f"{split}.beton{end}").read_bytes() == (expected / f"{split}.beton{end}").read_bytes()
        of_folder = Manifest.read(expected / f"{split}.beton")
        assert manifest.classes == of_folder.classes
        if same_digest:
            assert manifest.source_digest == of_folder.source_digest


def files_of(folder):
    """All files in a folder, in an order that is not sorted."""
    return sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.name[::-1])


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def make_tar(path, folder, prefix="", mode="w", format=tarfile.PAX_FORMAT):
    with tarfile.open(path, mode, format=format) as archive:
        for file in files_of(folder):
            archive.add(file, f"{prefix}{file.relative_to(folder)}")
    return path


def make_zip(path, folder, prefix="", compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in files_of(folder):
            archive.write(file, f"{prefix}{file.relative_to(folder)}")
    return path


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.xz", "tar.bz2"])
def test_a_tar_of_the_folder(tmp_path, images, expected, suffix):
    compression = suffix.partition(".")[2]
    root = make_tar(tmp_path / f"pets.{suffix}", images, "./imagenette/", f"w:{compression}")
    assert_same(root, expected, tmp_path / "out", "tar")


def test_a_tar_by_the_tar_command(tmp_path, images, expected):
    subprocess.run(["tar", "cf", tmp_path / "pets.tar", "-C", images.parent, images.name], check=True)
    assert_same(tmp_path / "pets.tar", expected, tmp_path / "out", "tar")


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_for_each_split_with_long_names(tmp_path, images, expected, format):
    make_tar(tmp_path / "train.tar", images / "train", "./" + "long/" * 60 + "train/", format=format)
    make_tar(tmp_path / "val.tar", images / "val", format=format)
    assert_same(tmp_path, expected, tmp_path / "out", "tar")


def test_links_in_a_tar(tmp_path, images, expected):
    folder = tmp_path / "linked"
    subprocess.run(["cp", "-r", images, folder], check=True)
    first, second, *_ = sorted((folder / "train" / SYNSETS[0]).iterdir())
    content = first.read_bytes()
    second.unlink()
    os.link(first, second)
    subprocess.run(["tar", "cf", tmp_path / "hard.tar", "-C", folder, "."], check=True)
    members = TarMembers(tmp_path / "hard.tar")
    for file in (first, second):
        assert members.read(members.find(file.name)) == content
    second.unlink()
    second.symlink_to(first.name)
    subprocess.run(["tar", "cf", tmp_path / "symbolic.tar", "-C", folder, "."], check=True)
    with pytest.raises(ValueError, match=rf"symbolic\.tar: train/.*/{second.name}: is a link in the archive"):
        write(tmp_path / "symbolic.tar", tmp_path / "out")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_of_the_folder(tmp_path, images, expected, compression):
    make_zip(tmp_path / "pets.zip", images, compression=compression)
    with zipfile.ZipFile(tmp_path / "pets.zip", "a") as archive:  # as macOS leaves them
        archive.writestr("__MACOSX/train/n01440764/._n01440764_3.JPEG", b"")
        archive.mkdir("train")
    assert_same(tmp_path / "pets.zip", expected, tmp_path / "out", "zip")


def test_a_zip_for_each_split(tmp_path, images, expected):
    make_zip(tmp_path / "train.zip", images / "train", "train/")
    make_zip(tmp_path / "val.zip", images / "val")
    assert_same(tmp_path, expected, tmp_path / "out", "zip")


def test_a_zip_with_64_bit_places(tmp_path, images, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)
    make_zip(tmp_path / "pets.zip", images)
    members = ZipMembers(tmp_path / "pets.zip")
    assert len(members.names) == 18
    for number, name in enumerate(members.names):
        assert members.read(number) == (images / name).read_bytes()


LABELS = dict(zip(SYNSETS, (2, 0, 1), strict=True))


def make_mapped(folder, images, in_archive, in_map, end="\n"):
    """train.zip and val.zip with their maps; the names in both come from (split, class, file)."""
    for split in BOTH:
        lines = []
        with zipfile.ZipFile(folder / f"{split}.zip", "w") as archive:
            for file in files_of(images / split):
                parts = {"split": split, "name": file.parent.name, "file": file.name}
                archive.write(file, in_archive[split].format(**parts))
                lines.append(f"{in_map[split].format(**parts)}\t{LABELS[file.parent.name]}{end}")
        (folder / f"{split}_map.txt").write_bytes("".join(lines).encode())


MAP_FORMS = {
    "as the MaxSup code documents it": (
        {"train": "train/{name}/{file}", "val": "val/{file}"},
        {"train": "{name}/{file}", "val": "{file}"},
    ),
    "as the MaxSup code has it": (
        dict.fromkeys(BOTH, "{split}/{name}/{file}"),
        dict.fromkeys(BOTH, "{split}/{name}/{file}"),
    ),
    "the end of the path": (dict.fromkeys(BOTH, "data/{split}/{name}/{file}"), dict.fromkeys(BOTH, "{name}/{file}")),
}


@pytest.mark.parametrize("form", MAP_FORMS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_zips_with_maps(tmp_path, images, expected, form, end):
    make_mapped(tmp_path, images, *MAP_FORMS[form], end)
    assert_same(tmp_path, expected, tmp_path / "out", "zip", same_digest=form != "as the MaxSup code documents it")
    by_map = find_sources(tmp_path, BOTH, "zip", "map")
    for source in by_map.values():
        assert source.classes == tuple(sorted(LABELS, key=LABELS.get))
        for file, label in zip(source.files, source.labels, strict=True):
            assert LABELS[file.split("/")[0]] == label


def test_maps_that_do_not_fit(tmp_path, images):
    forms = MAP_FORMS["as the MaxSup code has it"]
    make_mapped(tmp_path, images, *forms)
    path = tmp_path / "train_map.txt"
    text = path.read_text()
    lines = text.splitlines()
    for changed, message in [
        ([*lines, "train/x"], r"train_map\.txt, line 13: got 'train/x', allowed is PATH, a tab and a label"),
        (
            [line for line in lines if not line.endswith("1")],
            r"labels are 0 to 2, allowed are 0, 1, 2 \.\.\.; 1 is missing",
        ),
        ([*lines, lines[0][:-1] + "7"], r"line 13: .* has label 7 here and \d above"),
    ]:
        path.write_text("\n".join(changed))
        with pytest.raises(ValueError, match=message):
            find_sources(tmp_path, BOTH)
    path.write_text(text + "train/n01440764/gone.JPEG\t2\n")
    message = r"train_map\.txt, line 13: .*train\.zip has no member train/n01440764/gone\.JPEG"
    with pytest.raises(ValueError, match=message):
        write(tmp_path, tmp_path / "out")
    skipped = write(tmp_path, tmp_path / "out", on_error="skip")["train"].skipped
    assert list(skipped) == [f"{path}, line 13"]
    assert list(csv.reader((tmp_path / "out/train.beton.skipped.csv").open()))[1][0] == f"{path}, line 13"


def test_a_name_in_a_map_that_several_members_have(tmp_path, images):
    make_mapped(tmp_path, images, *MAP_FORMS["as the MaxSup code has it"])
    with zipfile.ZipFile(tmp_path / "train.zip", "a") as archive:
        archive.writestr("train/n01443537/n01440764_3.JPEG", b"")
    path = tmp_path / "train_map.txt"
    path.write_text(path.read_text() + "n01440764_3.JPEG\t2\n")
    with pytest.raises(ValueError, match=r"line 13: n01440764_3\.JPEG may be any of 2 members: train/n01440764/"):
        find_sources(tmp_path, BOTH)


def make_imagenet(folder, images, skip=None):
    """The official archives of the folder's images."""
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as outer:
        for name in reversed(SYNSETS):
            inner = make_tar(folder / "inner.tar", images / "train" / name)
            add(outer, f"{name}.tar", inner.read_bytes())
            inner.unlink()
    val = sorted(images.glob("val/*/*"), key=lambda path: path.name)
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as archive:
        for file in val:
            if file.name != skip:
                add(archive, file.name, file.read_bytes())
    ids = dict(zip(SYNSETS, (2, 3, 1), strict=True))
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(ids[name], name, f"words of {name}, other words", 0) for name in SYNSETS] + [(4, "n00001740", "entity", 3)]
    meta, truth = io.BytesIO(), "".join(f"{ids[file.parent.name]}\n" for file in val)
    scipy.io.savemat(meta, {"synsets": np.array(rows, fields)})
    with tarfile.open(folder / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        add(archive, "ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue())
        add(archive, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth.encode())
    return folder


def test_the_official_archives_of_imagenet(tmp_path, images, expected):
    make_imagenet(tmp_path, images)
    assert_same(tmp_path, expected, tmp_path / "out", "imagenet")
    assert Manifest.read(tmp_path / "out/val.beton").class_names[0] == "words of n01440764, other words"


def test_archives_of_imagenet_that_are_not_whole(tmp_path, images):
    make_imagenet(tmp_path, images, skip="ILSVRC2012_val_00000002.JPEG")
    with pytest.raises(ValueError, match=r"ILSVRC2012_img_val\.tar: it has 5 of 6 images"):
        write(tmp_path, tmp_path / "out")
    assert write(tmp_path, tmp_path / "out", on_error="skip")["val"].num_samples == 5
    (tmp_path / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no ILSVRC2012_devkit_t12\.tar\.gz, which has the labels"):
        find_sources(tmp_path, BOTH)
    assert find_sources(tmp_path, ["train"])["train"].class_names == ()
    (tmp_path / "ILSVRC2012_img_val.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no ILSVRC2012_img_val\.tar"):
        find_sources(tmp_path, BOTH)


# Damage


def test_a_tar_that_is_cut_off(tmp_path, images):
    whole = make_tar(tmp_path / "whole.tar", images).read_bytes()
    last = [number for number, name in enumerate(TarMembers(tmp_path / "whole.tar").names) if name.startswith("train")][
        -1
    ]
    start = int(TarMembers(tmp_path / "whole.tar").starts[last])
    path = tmp_path / "cut.tar"
    path.write_bytes(whole[: start + 100])
    with pytest.raises(ValueError, match=r"cut\.tar: it ends without the mark of an end"):
        write(path, tmp_path / "out", splits=("train",))
    skipped = write(path, tmp_path / "out", splits=("train",), on_error="skip")["train"].skipped
    assert sorted(skipped.values()) == [
        "it ends without the mark of an end, so that it may be cut off",
        "the archive ends in the middle of it",
    ]


def test_a_tar_with_a_damaged_header(tmp_path, images):
    path = make_tar(tmp_path / "pets.tar", images)
    start = int(TarMembers(path).starts[7]) - 512
    content = bytearray(path.read_bytes())
    content[start + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"pets\.tar: it is damaged at byte {start}: bad checksum"):
        write(path, tmp_path / "out")


def test_a_compressed_tar_that_is_cut_off(tmp_path, images):
    path = make_tar(tmp_path / "pets.tar.gz", images, mode="w:gz")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"pets\.tar\.gz: it cannot be unpacked to its end: Compressed file ended"):
        write(path, tmp_path / "out")


def test_a_zip_that_is_cut_off(tmp_path, images):
    path = make_zip(tmp_path / "pets.zip", images)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"pets\.zip: is no whole ZIP archive: its directory, .* is missing"):
        write(path, tmp_path / "out")


def test_a_zip_with_a_wrong_checksum(tmp_path, images):
    path = make_zip(tmp_path / "pets.zip", images, compression=zipfile.ZIP_STORED)
    name = "train/n01440764/n01440764_3.JPEG"
    content = path.read_bytes()
    jpeg = (images / name).read_bytes()
    path.write_bytes(content.replace(jpeg, jpeg[:300] + bytes([jpeg[300] ^ 1]) + jpeg[301:]))
    with pytest.raises(ValueError, match=rf"cannot store {path}: {name}: is damaged: its checksum \(CRC-32\) is wrong"):
        write(path, tmp_path / "out")
    assert list(write(path, tmp_path / "out", on_error="skip")["train"].skipped) == [name.partition("/")[2]]


def test_a_zip_that_unpacks_to_more_than_it_says(tmp_path, images):
    path = make_zip(tmp_path / "pets.zip", images)
    name = b"train/n01440764/bomb.png"
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name.decode(), bytes(50_000_000))
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\1\2", 0, content.rindex(name))
    content[entry + 24 : entry + 28] = struct.pack("<L", 5000)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bomb\.png: unpacks to more than the 5000 bytes that the archive says"):
        write(path, tmp_path / "out")


def test_a_member_that_is_too_large_for_an_image_is_not_read(tmp_path, images, monkeypatch):
    monkeypatch.setattr(archive_members, "MAX_FILE_BYTES", 100)
    with pytest.raises(ValueError, match=r"\.JPEG: has \d+ bytes in the archive, allowed are 100"):
        write(make_zip(tmp_path / "pets.zip", images), tmp_path / "out")


@pytest.mark.parametrize("name", ["../train/n01440764/x.JPEG", "/train/n01440764/x.JPEG", "train/../../x.JPEG"])
def test_members_outside_of_the_folder_are_refused(tmp_path, name):
    with tarfile.open(tmp_path / "pets.tar", "w") as archive:
        add(archive, name, b"x")
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        archive.writestr(name, b"x")
    for file in ("pets.tar", "pets.zip"):
        with pytest.raises(ValueError, match=rf"{file}: the member {re.escape(name)} would be unpacked outside"):
            find_sources(tmp_path / file, BOTH)


def test_a_member_that_comes_twice_counts_as_its_last(tmp_path, images):
    with tarfile.open(make_tar(tmp_path / "pets.tar", images), "a") as archive:
        add(archive, "train/n01440764/n01440764_3.JPEG", b"last")
    source = find_sources(tmp_path / "pets.tar", BOTH)["train"]
    assert source.read(source.files.index("n01440764/n01440764_3.JPEG")) == b"last"
    assert len(source.files) == 12


def test_a_compressed_tar_with_damaged_bytes(tmp_path, images):
    for suffix in ("gz", "bz2", "xz"):
        path = make_tar(tmp_path / f"pets.tar.{suffix}", images, mode=f"w:{suffix}")
        content = bytearray(path.read_bytes())
        content[len(content) // 2 : len(content) // 2 + 60] = b"damaged" * 9
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"pets\.tar\.{suffix}"):
            write(path, tmp_path / "out")


def test_no_room_for_a_temporary_file_is_said_with_what_to_do(tmp_path, images, monkeypatch):
    path = make_tar(tmp_path / "pets.tar.gz", images, mode="w:gz")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(OSError, match=rf"cannot unpack {path} in .*: File too large \(TMPDIR=FOLDER takes another"):
            find_sources(path, BOTH)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_tars_in_tars_in_tars_are_no_folders(tmp_path):
    content = b""
    for depth in range(5):
        inner = io.BytesIO()
        with tarfile.open(fileobj=inner, mode="w") as archive:
            add(archive, f"level{depth}.tar" if content else "x.jpg", content)
        content = inner.getvalue()
    (tmp_path / "deep.tar").write_bytes(content)
    assert TarMembers(tmp_path / "deep.tar").names == ["level4/level3.tar"]


@pytest.mark.parametrize("file", ["train.csv", "train_map.txt"])
def test_lists_that_are_no_text_are_named(tmp_path, images, file):
    make_zip(tmp_path / "train.zip", images / "train")
    (tmp_path / file).write_bytes(b"a\xff,1\n")
    with pytest.raises(ValueError, match=rf"{file} is no text in UTF-8: .*byte 0xff in position 1"):
        find_sources(tmp_path, ["train"], "csv" if file == "train.csv" else "zip")


# What auto finds


def test_auto_says_what_it_finds_and_never_guesses(tmp_path, images):
    assert describe(find_sources(images, BOTH)) == (
        "format folder: train has 12 images in 3 classes, val has 6 images in 3 classes"
    )
    (tmp_path / "train").mkdir()
    make_tar(tmp_path / "train.tar", images / "train")
    with pytest.raises(ValueError, match=r"may be any of folder, tar: give --data\.format=folder | tar"):
        find_sources(tmp_path, ["train"])
    assert find_sources(tmp_path, ["train"], "tar")["train"].classes == SYNSETS
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes").touch()
    with pytest.raises(ValueError, match=r"empty is no data set that is known \(it has notes\): expected is folder: a"):
        find_sources(empty, BOTH)
    with pytest.raises(ValueError, match=r"notes is no data set that is known"):
        find_sources(empty / "notes", BOTH)
    with pytest.raises(FileNotFoundError, match="images not found: /nowhere"):
        find_sources(Path("/nowhere"), BOTH)


def test_an_archive_without_a_split_or_with_two(tmp_path, images):
    make_tar(tmp_path / "one.tar", images / "train", "imagenet/train/")
    with pytest.raises(FileNotFoundError, match=r"folder val/<class>/<image> not found in .*one\.tar, .* imagenet"):
        find_sources(tmp_path / "one.tar", BOTH)
    make_tar(tmp_path / "two.tar", images.parent)
    with tarfile.open(tmp_path / "two.tar", "w") as archive:
        for folder in ("a", "b"):
            add(archive, f"{folder}/train/cat/1.png", b"")
    with pytest.raises(ValueError, match=r"has two folders for train, a/train and b/train"):
        find_sources(tmp_path / "two.tar", BOTH)


def test_a_format_that_finds_no_split_or_no_image_is_one_line(tmp_path, images, monkeypatch):
    monkeypatch.setattr("ffcv_imagenet.data.sources.folder.open_splits", lambda root, splits: {})
    with pytest.raises(FileNotFoundError, match=r"has no split train and no split val \(format folder\)"):
        find_sources(images, BOTH)
    with pytest.raises(ValueError, match="somewhere has no images"):
        arrange("folder", FolderMembers.below(tmp_path), {}, str, place="somewhere", name="x")


def test_splits_of_other_classes_are_refused(tmp_path, images):
    make_tar(tmp_path / "train.tar", images / "train")
    make_tar(tmp_path / "val.tar", draw_folder(tmp_path / "pets") / "val")
    with pytest.raises(ValueError, match=r"val\.tar must have the classes of .*train\.tar: 3 missing"):
        find_sources(tmp_path, BOTH)


def test_the_threads_may_read_one_archive_together(tmp_path, images):
    from concurrent.futures import ThreadPoolExecutor

    source = find_sources(make_zip(tmp_path / "pets.zip", images), ["train"])["train"]
    numbers = list(range(len(source.files))) * 20
    with ThreadPoolExecutor(4) as pool:
        contents = list(pool.map(source.read, numbers))
    for number, content in zip(numbers, contents, strict=True):
        assert content == (images / "train" / source.files[number]).read_bytes()


# Other forms


def make_kaggle(folder, images):
    """The competition's files, unpacked."""
    top = folder / "ILSVRC/Data/CLS-LOC"
    rows = ["ImageId,PredictionString"]
    for file in sorted(images.glob("*/*/*")):
        split, name = file.parts[-3:-1]
        target = top / split / (f"{name}/{file.name}" if split == "train" else file.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
        if split == "val":
            rows.append(f"{file.stem},{name} 85 1 499 272 {name} 1 2 3 4")
    (folder / "LOC_val_solution.csv").write_text("\n".join(rows) + "\n")
    (folder / "LOC_synset_mapping.txt").write_text("".join(f"{name} a {name}, another\n" for name in SYNSETS))
    return folder


@pytest.mark.parametrize("form", ["folder", "zip", "tar.gz"])
def test_the_competition_of_kaggle(tmp_path, images, expected, form):
    folder = root = make_kaggle(tmp_path / "kaggle", images)
    if form == "zip":
        root = make_zip(tmp_path / "imagenet-object-localization-challenge.zip", folder)
    elif form == "tar.gz":  # its CSV files are downloaded next to it
        make_tar(tmp_path / "imagenet_object_localization_patched2019.tar.gz", folder / "ILSVRC", "ILSVRC/", "w:gz")
        for file in folder.glob("LOC*"):
            file.rename(tmp_path / file.name)
        root = tmp_path
    assert_same(root, expected, tmp_path / "out", "kaggle")
    assert Manifest.read(tmp_path / "out/train.beton").class_names[0] == "a n01440764, another"


def test_the_competition_of_kaggle_with_other_labels_than_images(tmp_path, images):
    folder = make_kaggle(tmp_path, images)
    solution = folder / "LOC_val_solution.csv"
    lines = solution.read_text().splitlines()
    solution.write_text("\n".join([*lines[:-1], lines[-1].replace(lines[-1][:23], "ILSVRC2012_val_00000099")]))
    with pytest.raises(ValueError, match=r"LOC_val_solution\.csv, line 7: .*val has no image ILSVRC2012_val_00000099"):
        write(folder, tmp_path / "out")
    assert write(folder, tmp_path / "out", on_error="skip")["val"].num_samples == 5
    solution.unlink()
    with pytest.raises(FileNotFoundError, match=r"has no LOC_val_solution\.csv"):
        find_sources(folder, BOTH)


CIFAR_NAMES = ("airplane", "automobile", "bird")


@pytest.fixture(scope="module")
def small_images():
    """Pixels [N, 3, 32, 32] and labels by file of CIFAR-10."""
    rng = np.random.default_rng(0)
    return {
        name: (rng.integers(0, 256, (4, 3, 32, 32), np.uint8), rng.permutation([0, 1, 2, number % 3]))
        for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"])
    }


@pytest.fixture(scope="module")
def small_expected(small_images, tmp_path_factory):
    """What the writer makes of the images of CIFAR as PNG files in folders."""
    root = tmp_path_factory.mktemp("small")
    for split in BOTH:
        files = [file for file in small_images if (file == "test_batch") == (split == "val")]
        pixels, labels = (np.concatenate([small_images[file][part] for file in files]) for part in (0, 1))
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            folder = root / split / CIFAR_NAMES[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number:05}.png")
    write_splits(root, root, BOTH, PARAMETERS, num_workers=1)
    return root


def make_cifar(folder, small_images, version, protocol=2):
    batches = folder / version
    batches.mkdir(parents=True)
    files = dict(small_images)
    if version.startswith("cifar-100"):
        train = [files[f"data_batch_{n}"] for n in range(1, 6)]
        files = {"train": tuple(map(np.concatenate, zip(*train, strict=True))), "test": files["test_batch"]}
    for name, (pixels, labels) in files.items():
        rows = pixels.reshape(len(pixels), -1)
        if version.endswith(("py", "python")):
            key = b"fine_labels" if version.startswith("cifar-100") else b"labels"
            content = pickle.dumps({b"data": rows, key: labels.tolist(), b"batch_label": b"x"}, protocol=protocol)
            (batches / name).write_bytes(content)
        else:
            first = [labels * 0, labels] if version.startswith("cifar-100") else [labels]
            (batches / f"{name}.bin").write_bytes(np.column_stack([*first, rows]).astype(np.uint8).tobytes())
    names = [name.encode() for name in CIFAR_NAMES]
    if version == "cifar-10-batches-py":
        (batches / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=protocol))
    elif version == "cifar-100-python":
        (batches / "meta").write_bytes(pickle.dumps({b"fine_label_names": names}, protocol=protocol))
    else:
        file = "batches.meta.txt" if version == "cifar-10-batches-bin" else "fine_label_names.txt"
        (batches / file).write_text("\n".join(CIFAR_NAMES) + "\n\n")
    return batches


@pytest.mark.parametrize("form", ["tar.gz", "folder"])
@pytest.mark.parametrize("version", cifar.VERSIONS)
def test_cifar_as_it_is_published(tmp_path, small_images, small_expected, version, form):
    root = make_cifar(tmp_path / "files", small_images, version)
    if form == "tar.gz":
        root = make_tar(tmp_path / f"{version}.tar.gz", tmp_path / "files", mode="w:gz")
    assert_same(root, small_expected, tmp_path / "out", "cifar", same_digest=False)


def test_a_pickle_of_cifar_runs_no_code(tmp_path, small_images):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/run",)

    root = make_cifar(tmp_path, small_images, "cifar-10-batches-py")
    (root / "data_batch_3").write_bytes(pickle.dumps({b"data": Hostile(), b"labels": [0]}))
    with pytest.raises(ValueError, match=r"data_batch_3 is not CIFAR's: .*the pickle calls posix\.system, .* not run"):
        find_sources(root, BOTH)
    assert not (tmp_path / "run").exists()
    (root / "data_batch_3").write_bytes(b"\x80")
    with pytest.raises(ValueError, match=r"data_batch_3 is not CIFAR's"):
        find_sources(root, BOTH)
    (root / "data_batch_3").unlink()
    with pytest.raises(ValueError, match="has no member data_batch_3"):
        find_sources(root, BOTH)


def test_the_digest_of_cifar_tells_other_pixels(tmp_path, small_images):
    root = make_cifar(tmp_path, small_images, "cifar-10-batches-bin")
    before = find_sources(root, BOTH)["val"].digest
    file = root / "test_batch.bin"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    assert find_sources(root, BOTH)["val"].digest != before


@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize("header", ["", "label,path,split\n"])
def test_csv_files(tmp_path, images, expected, numbers, header):
    lines = []
    for file in files_of(images):
        if file.suffix == ".JPEG":
            split, name = file.parts[-3:-1]
            label = SYNSETS.index(name) if numbers else name
            path = os.path.relpath(file, tmp_path)
            split = "validation" if split == "val" else split
            lines.append(f"{label},{path},{split}\n" if header else f"{path},{label},{split}\n")
    (tmp_path / "images.csv").write_text(header + "".join(lines))
    out = tmp_path / "out"
    for split, manifest in write(tmp_path / "images.csv", out).items():
        assert manifest.source_format == "csv"
        assert (out / f"{split}.beton").read_bytes() == (expected / f"{split}.beton").read_bytes()
        assert manifest.classes == (("class_0", "class_1", "class_2") if numbers else SYNSETS)
    (tmp_path / "images.csv").write_text(header + "".join([*lines, "only\n"]))
    with pytest.raises(
        ValueError, match=rf"images\.csv, line {len(lines) + 1 + bool(header)}: got \['only'\], allowed"
    ):
        find_sources(tmp_path / "images.csv", BOTH)


def test_a_csv_file_for_each_split(tmp_path, images, expected):
    for split in BOTH:
        rows = [f"{os.path.relpath(file, tmp_path)},{file.parent.name}" for file in files_of(images / split)]
        (tmp_path / f"{split}.csv").write_text("\n".join(rows))
    assert_same(tmp_path, expected, tmp_path / "out", "csv", same_digest=False)
    (tmp_path / "val.csv").write_text("gone.jpg,n01440764\n")
    with pytest.raises(ValueError, match=r"val\.csv must have the classes of .*train\.csv: 2 missing"):
        find_sources(tmp_path, BOTH)


def make_shards(folder, images, form, count=2):
    """WebDataset shards whose samples lie in no order; ``form`` says where the label is."""
    folder.mkdir(exist_ok=True)
    for split in BOTH:
        files = files_of(images / split)
        for shard in range(count):
            with tarfile.open(folder / f"imagenet-{split}-{shard:03}.tar", "w") as archive:
                add(archive, "__info__.txt", b"a shard")
                for file in files[shard::count]:
                    label = SYNSETS.index(file.parent.name)
                    parts = {"cls": {"cls": f"{label}\n"}, "json": {"json": json.dumps({"label": label})}}.get(form, {})
                    start = f"{file.parent.name}/" if form == "folder" else ""
                    add(archive, f"{start}{file.stem}.jpg", file.read_bytes())
                    for kind, text in parts.items():
                        add(archive, f"{start}{file.stem}.{kind}", text.encode())
    return folder


@pytest.mark.parametrize("form", ["cls", "json", "folder"])
@pytest.mark.parametrize("pattern", [False, True])
def test_shards_of_webdataset(tmp_path, images, expected, form, pattern):
    root = make_shards(tmp_path / "shards", images, form)
    out = tmp_path / "out"
    for split, manifest in write(root / "imagenet-{train,val}-{000..001}.tar" if pattern else root, out).items():
        assert manifest.source_format == "webdataset"
        assert manifest.classes == (SYNSETS if form == "folder" else ("class_0", "class_1", "class_2"))
        assert manifest.source_folder == "shards"
        assert (out / f"{split}.beton").read_bytes() == (expected / f"{split}.beton").read_bytes()


def test_one_shard_for_one_split(tmp_path, images, expected):
    shard = make_shards(tmp_path / "shards", images, "cls", count=1) / "imagenet-val-000.tar"
    write(shard.rename(tmp_path / "images.tar"), tmp_path / "out", splits=("val",))
    assert (tmp_path / "out/val.beton").read_bytes() == (expected / "val.beton").read_bytes()


def test_shards_that_are_not_whole(tmp_path, images):
    root = make_shards(tmp_path / "shards", images, "json")
    with pytest.raises(FileNotFoundError, match=r"imagenet-train-002\.tar, one of the 3 that .* stands for"):
        find_sources(root / "imagenet-train-{000..002}.tar", ["train"])
    with tarfile.open(root / "imagenet-val-001.tar", "a") as archive:
        add(archive, "x.jpg", b"")
        add(archive, "x.json", b"[]")
    with pytest.raises(ValueError, match=r"imagenet-val-001\.tar: x\.json: allowed is a JSON object with a label in"):
        find_sources(root, BOTH)
    for file in root.glob("*val*"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"no \.tar file with val in its name .*--write\.splits=train"):
        find_sources(root, BOTH)


def make_parquet(folder, images, class_names=SYNSETS):
    """Shards as on the hub, the rows in no order."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    folder.mkdir()
    for split, name in (("train", "train"), ("val", "validation")):
        files = files_of(images / split)
        for shard in range(2):
            rows = [
                {"image": {"bytes": f.read_bytes(), "path": f.name}, "label": SYNSETS.index(f.parent.name)}
                for f in files[shard::2]
            ]
            features = {"label": {"names": list(class_names), "_type": "ClassLabel"}, "image": {"_type": "Image"}}
            metadata = {"huggingface": json.dumps({"info": {"features": features}})} if class_names else {}
            table = pyarrow.Table.from_pylist(rows).replace_schema_metadata(metadata)
            path = folder / f"{name}-{shard:05}-of-00002.parquet"
            parquet.write_table(table, path, row_group_size=3)
    return folder


def test_parquet_shards(tmp_path, images, expected):
    root = make_parquet(tmp_path / "data", images)
    assert_same(tmp_path, expected, tmp_path / "out", "parquet", same_digest=False)
    content = bytearray((root / "validation-00001-of-00002.parquet").read_bytes())
    (root / "validation-00001-of-00002.parquet").write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"validation-00001-of-00002\.parquet cannot be read"):
        find_sources(tmp_path, BOTH)


def test_parquet_shards_without_class_names(tmp_path, images):
    make_parquet(tmp_path / "data", images, class_names=())
    assert find_sources(tmp_path, BOTH)["val"].classes == ("class_0", "class_1", "class_2")


def test_parquet_without_pyarrow_is_a_line(tmp_path, monkeypatch):
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match="reading Parquet files needs pyarrow: pip install pyarrow"):
        find_sources(tmp_path, ["train"])


CLASSES_OF_CUB = ("001.Black_footed_Albatross", "002.Laysan_Albatross")


def make_cub(folder, root):
    """CUB_200_2011 of the images of an image folder with two classes."""
    top = folder / "CUB_200_2011"
    lists = {"images": [], "image_class_labels": [], "train_test_split": []}
    for number, file in enumerate(files_of(root), 1):
        split, name = file.parts[-3:-1]
        path = f"{name}/{split}_{file.name}"
        (top / "images" / name).mkdir(parents=True, exist_ok=True)
        (top / "images" / path).write_bytes(file.read_bytes())
        lists["images"].append(f"{number} {path}")
        lists["image_class_labels"].append(f"{number} {CLASSES_OF_CUB.index(name) + 1}")
        lists["train_test_split"].append(f"{number} {int(split == 'train')}")
    lists["classes"] = [f"{number} {name}" for number, name in enumerate(CLASSES_OF_CUB, 1)]
    for name, lines in lists.items():
        (top / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return top


@pytest.mark.parametrize("form", ["folder", "tgz"])
def test_cub(tmp_path, form):
    images = draw_folder(tmp_path / "images", classes=CLASSES_OF_CUB)
    write_splits(images, tmp_path / "expected", BOTH, PARAMETERS, num_workers=1)
    root = make_cub(tmp_path / "files", images)
    if form == "tgz":
        root = make_tar(tmp_path / "CUB_200_2011.tgz", tmp_path / "files", mode="w:gz")
    assert_same(root, tmp_path / "expected", tmp_path / "out", "cub", same_digest=False)
    assert Manifest.read(tmp_path / "out/val.beton").class_names == ("Black footed Albatross", "Laysan Albatross")


@pytest.mark.parametrize("form", ["folder", "tgz"])
def test_stanford_cars(tmp_path, form):
    classes = ("AM General Hummer SUV 2000", "Acura RL Sedan 2012")
    images = draw_folder(tmp_path / "images", classes=classes, extension=".jpg")
    write_splits(images, tmp_path / "expected", BOTH, PARAMETERS, num_workers=1)
    root = tmp_path / "cars"
    (root / "devkit").mkdir(parents=True)
    for split, folder, labels in (
        ("train", "cars_train", "devkit/cars_train_annos.mat"),
        ("val", "cars_test", "cars_test_annos_withlabels.mat"),
    ):
        (root / folder).mkdir()
        rows = []
        for number, file in enumerate(sorted(images.glob(f"{split}/*/*")), 1):
            (root / folder / f"{number:05}.jpg").write_bytes(file.read_bytes())
            rows.append((1, classes.index(file.parent.name) + 1, f"{number:05}.jpg"))
        kinds = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
        scipy.io.savemat(root / labels, {"annotations": np.array(rows, kinds)})
    scipy.io.savemat(root / "devkit/cars_meta.mat", {"class_names": np.array(classes, object)})
    if form == "tgz":
        for folder, archive in (("cars_train", "cars_train"), ("cars_test", "cars_test"), ("devkit", "car_devkit")):
            make_tar(root / f"{archive}.tgz", root / folder, f"{folder}/", "w:gz")
            shutil.rmtree(root / folder)
    assert_same(root, tmp_path / "expected", tmp_path / "out", "cars", same_digest=False)
    (root / "cars_test_annos_withlabels.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(ValueError, match=r"cars_test_annos_withlabels\.mat cannot be read"):
        find_sources(root, BOTH)


def test_names_of_classes_from_a_file(tmp_path, images):
    file = tmp_path / "names.txt"
    for text in ("n02084071 dog\nn01440764 tench\n\nn01443537 great fish\n", "tench\ngreat fish\ndog\n"):
        file.write_text(text)
        assert find_sources(images, BOTH, class_names=file)["val"].class_names == ("tench", "great fish", "dog")
    file.write_text("tench\n")
    with pytest.raises(ValueError, match=r"names\.txt has 1 lines, allowed are a line for each of the 3 classes"):
        find_sources(images, BOTH, class_names=file)


def test_a_data_set_of_torchvision(tmp_path):
    classes = ("Abyssinian", "American Bulldog")
    images = draw_folder(tmp_path / "images", classes=classes, extension=".png")
    write_splits(images, tmp_path / "expected", BOTH, PARAMETERS, num_workers=1)
    base = tmp_path / "oxford-iiit-pet"
    for folder in ("images", "annotations/trimaps"):
        (base / folder).mkdir(parents=True)
    number = 0
    for split, name in (("train", "trainval"), ("val", "test")):
        lines = []
        for file in sorted(images.glob(f"{split}/*/*")):
            number += 1
            image = f"{file.parent.name.replace(' ', '_')}_{number}"
            (base / f"images/{image}.jpg").write_bytes(file.read_bytes())
            lines.append(f"{image} {classes.index(file.parent.name) + 1} 1 1\n")
        (base / f"annotations/{name}.txt").write_text("".join(lines))
    out, format = tmp_path / "out", "torchvision:OxfordIIITPet"
    assert_same(tmp_path, tmp_path / "expected", out, format, same_digest=False, chosen=format)
    with pytest.raises(ValueError, match=r"/out: torchvision: Dataset not found"):
        find_sources(out, BOTH, format)
    for name in ("Nothing", "ImageFolder"):
        with pytest.raises(ValueError, match=rf"got torchvision:{name}, allowed is a class of torchvision\.datasets"):
            find_sources(tmp_path, BOTH, f"torchvision:{name}")
    (base / "images/Abyssinian_1.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"OxfordIIITPet, train\): item 0: cannot identify image file"):
        write(tmp_path, tmp_path / "other", format)
