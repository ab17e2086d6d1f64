"""Tars and ZIPs give the .beton of the unpacked folder, and damaged ones are told."""

import csv
import io
import itertools
import os
import re
import resource
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from containers import BOTH, add, assert_same, make_mapped, make_tar, make_zip, write
from images import draw_folder

from ffcv_imagenet.data.sources import members as archive_members
from ffcv_imagenet.data.sources import tar
from ffcv_imagenet.data.sources.files import FolderMembers
from ffcv_imagenet.data.sources.find import describe, find_sources
from ffcv_imagenet.data.sources.members import arrange
from ffcv_imagenet.data.sources.tar import TarMembers
from ffcv_imagenet.data.sources.zip import ZipMembers

SYNSETS = ("n01440764", "n01443537", "n02084071")


@pytest.fixture
def images(synset_images):
    return synset_images


@pytest.fixture
def expected(synset_betons):
    return synset_betons


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


def test_a_plain_header_is_read_as_tarfile_reads_it():
    generator = np.random.default_rng(0)
    names = ["a.png", "x" * 100, "a/" * 70 + "b.png", "\xe9 \udcff.png", " a ", "a/b/"]
    places, as_plain = [*range(100), *range(124, 136), *range(148, 157), *range(257, 265), *range(345, 500)], 0
    kinds, sizes, formats = (
        (tarfile.REGTYPE, tarfile.XHDTYPE),
        (0, 1, 8**11 - 1),
        (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT),
    )
    for kind, name, size, format in itertools.product(kinds, names, sizes, formats):
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, size
        blocks = [bytearray(info.tobuf(format, "utf-8", "surrogateescape")[-512:])]
        for _ in range(30):
            changed = bytearray(blocks[0])
            changed[generator.choice(places)] = generator.choice([0, 32, 48, 49, 55, 57, 255, generator.integers(256)])
            if generator.random() < 0.7:  # a checksum that is right
                changed[148:156] = b" " * 8
                changed[148:156] = b"%06o\0 " % sum(changed)
            blocks.append(changed)
        for block in map(bytes, blocks):
            plain = tar._read_plain(block)
            if plain is not None:
                expected = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                assert plain == (expected.type, expected.name, expected.size, expected.linkname)
        as_plain += tar._read_plain(bytes(blocks[0])) is not None
    assert as_plain == 2 * len(names) * 3 * 2
    assert tar._read_plain(bytes(512)) is tar._read_plain(bytes(blocks[0][:-1])) is None


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


@pytest.mark.parametrize("format", ["gnu", "posix"])
def test_sparse_files_in_a_tar_are_named(tmp_path, images, expected, format):
    folder = tmp_path / "sparse"
    subprocess.run(["cp", "-r", images, folder], check=True)
    file = sorted((folder / "train" / SYNSETS[0]).iterdir())[1]
    with file.open("ab") as image:  # holes after the image's end: 8 parts, more than a header has room for
        for part in range(8):
            image.truncate((1 + part) << 20)
            image.seek(0, os.SEEK_END)
            image.write(bytes([part + 1]) * 4096)
    subprocess.run(["tar", "-S", f"--format={format}", "-cf", tmp_path / "sparse.tar", "-C", folder, "."], check=True)
    assert (tmp_path / "sparse.tar").stat().st_size < 4 << 20
    members = TarMembers(tmp_path / "sparse.tar")
    assert members.damage == {}
    assert sorted(members.names) == sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))
    with pytest.raises(ValueError, match=rf"/{file.name}: is stored as a sparse file .*unpack the archive"):
        write(tmp_path / "sparse.tar", tmp_path / "out")


def test_a_sparse_tar_in_a_tar_is_named(tmp_path, images):
    inner = tmp_path / "sparse" / "n01440764.tar"
    inner.parent.mkdir()
    make_tar(inner, images / "train" / "n01440764")
    os.truncate(inner, inner.stat().st_size + (4 << 20))
    subprocess.run(["tar", "-S", "-cf", tmp_path / "sparse.tar", "-C", inner.parent, "."], check=True)
    [(place, reason)] = TarMembers(tmp_path / "sparse.tar").damage.items()
    assert place.endswith("sparse.tar: n01440764.tar")
    assert "sparse file" in reason


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
        assert source.classes == (*SYNSETS[1:], SYNSETS[0])
        for file, label in zip(source.files, source.labels, strict=True):
            assert source.classes[label] == file.split("/")[0]


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
    with pytest.raises(
        ValueError, match=r"\.JPEG: has \d+ bytes in the archive, allowed are 100; .*unpack the archive"
    ):
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
    with pytest.raises(ValueError, match=rf"expected is train/<class>/<image> .*: is {images.resolve()} meant\?$"):
        find_sources(images / "train", BOTH)
    (tmp_path / "unsplit").symlink_to(images / "train")
    with pytest.raises(ValueError, match=r"unsplit has folders of images \(it has n.*\), expected is train/<class>"):
        find_sources(tmp_path / "unsplit", BOTH)


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
