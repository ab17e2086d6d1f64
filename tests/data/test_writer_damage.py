"""Images that cannot be stored: named, or skipped and listed."""

import csv
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ffcv.reader import Reader
from images import draw_folder
from PIL import Image
from writing import names, stored, write

from ffcv_imagenet.data.format.index import EntryIndex
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.sources import pixels
from ffcv_imagenet.data.sources.folder import scan_splits
from ffcv_imagenet.data.write.parameters import resolve_parameters, sample_order

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A folder with a file of every kind that cannot be stored, and those files."""
    root = draw_folder(tmp_path_factory.mktemp("broken") / "root", train=8, extension=".jpg")
    files = {name: root / "train" / name for name in ("cat/001.jpg", "cat/003.jpg", "dog/000.jpg", "dog/002.jpg")}
    truncated, empty, text, gone = files.values()
    truncated.write_bytes(truncated.read_bytes()[:-100])
    empty.write_bytes(b"")
    text.write_text("no image")
    gone.unlink()
    gone.symlink_to("nowhere.jpg")
    return root, list(files)


REASONS = ["image file is truncated", "not an image", "not an image", "cannot be read: No such file or directory"]


@pytest.mark.parametrize("number", range(4))
def test_a_file_that_cannot_be_stored_is_named_and_nothing_is_left(tmp_path, broken, number):
    root, files = broken
    shutil.copytree(root, tmp_path / "root", symlinks=True)
    for other in files[:number] + files[number + 1 :]:
        (tmp_path / "root/train" / other).unlink()
    message = rf"^cannot store {tmp_path}/root/train/{files[number]}: {REASONS[number]}"
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "root", tmp_path / "out", num_workers=2)
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize("mode", ["proportion", "jpg"])
def test_skipping_leaves_out_those_files_and_changes_nothing_else(tmp_path, broken, mode):
    root, files = broken
    options = {"mode": mode, "shuffle": True, "seed": 2}
    beton = write(root, tmp_path / "out", num_workers=2, on_error="skip", **options)
    manifest = Manifest.read(beton)
    manifest.verify(beton)
    assert sorted(manifest.skipped) == files
    for file, reason in zip(files, REASONS, strict=True):
        assert manifest.skipped[file].startswith(reason)
    rows = list(csv.reader((tmp_path / "out/train.beton.skipped.csv").open()))
    assert rows == [["file", "reason"], *map(list, manifest.skipped.items())]
    assert manifest.images_per_class == (6, 6)

    # The same folder with whole images in those places: the others are stored alike, in the same order.
    shutil.copytree(root, tmp_path / "whole", symlinks=True)
    for file in files:
        (tmp_path / "whole/train" / file).unlink()
        shutil.copy(root / "train/cat/000.jpg", tmp_path / "whole/train" / file)
    whole = write(tmp_path / "whole", tmp_path / "all", **options)
    folder = scan_splits(tmp_path / "whole", ["train"])["train"]
    order = sample_order(16, resolve_parameters(**options))
    kept = [place for place, index in enumerate(order) if folder.files[index] not in files]
    assert stored(beton) == [stored(whole)[place] for place in kept]
    index, of_whole = (EntryIndex.open(b, Manifest.read(b).checksum, n) for b, n in ((beton, 12), (whole, 16)))
    entries = [index.entries[a:b].tobytes() for a, b in itertools.pairwise(index.offsets.tolist())]
    expected = [of_whole.entries[a:b].tobytes() for a, b in itertools.pairwise(of_whole.offsets.tolist())]
    assert entries == [expected[place] for place in kept]
    index.verify()
    labels = Reader(str(beton)).metadata["f1"].tolist()
    assert labels == [int(folder.labels[order[place]]) for place in kept]


def test_a_skipped_file_whose_name_is_no_utf_8_is_listed_with_its_bytes(tmp_path):
    root = draw_folder(tmp_path / "root")
    name = os.fsdecode(b"caf\xe9.png")
    (root / "train/cat" / name).touch()
    beton = write(root, tmp_path / "out", on_error="skip")
    assert Manifest.read(beton).skipped == {f"cat/{name}": "not an image"}
    assert (tmp_path / "out/train.beton.skipped.csv").read_bytes().endswith(b"\r\ncat/caf\xe9.png,not an image\r\n")


def test_line_breaks_and_escape_sequences_of_names_are_shown_escaped(tmp_path, capsys):
    root = draw_folder(tmp_path / "root")
    (root / "train/cat/a\nerror: nothing\x1b[2J.png").touch()
    escaped = r"cat/a\nerror: nothing\x1b[2J.png"
    with pytest.raises(ValueError, match=re.escape(f"cannot store {root}/train/{escaped}: not an image")):
        write(root, tmp_path / "out")
    write(root, tmp_path / "out", on_error="skip")
    rows = (tmp_path / "out/train.beton.skipped.csv").read_text().splitlines()
    assert rows == ["file,reason", f"{escaped},not an image"]
    (root / "train/co\nw").mkdir()
    with pytest.raises(ValueError, match=re.escape(rf"class folder {root}/train/co\nw has no images")):
        write(root, tmp_path / "other")
    out = tmp_path / os.fsdecode(b"n\xff\x1b[2J")
    shutil.rmtree(root / "train/co\nw")
    capsys.readouterr()
    for _ in range(2):
        write(root, out, on_error="skip")
    printed = capsys.readouterr().out
    assert printed.count(r"n\xff\x1b[2J/train.beton") == 3
    assert not set("\x1b\udcff") & set(printed)


def test_special_files_are_named_and_not_opened(tmp_path):
    root = draw_folder(tmp_path / "root")
    os.mkfifo(root / "train/cat/pipe.png")
    (root / "train/cat/null.png").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(root / "train/dog/socket.png"))
        with pytest.raises(
            ValueError, match=r"cannot store .*/cat/null\.png: cannot be read: it is a device, not a reg"
        ):
            write(root, tmp_path / "out")
        beton = write(root, tmp_path / "out", on_error="skip")
    kinds = {"cat/null.png": "a device", "cat/pipe.png": "a FIFO", "dog/socket.png": "a socket"}
    reasons = {file: f"cannot be read: it is {kind}, not a regular file" for file, kind in kinds.items()}
    assert Manifest.read(beton).skipped == reasons


def test_classes_that_skipping_leaves_without_images_are_named(tmp_path, capsys):
    root = draw_folder(tmp_path / "root", classes=("cat", "c\x1bw", "dog"))
    for file in [*root.glob("train/c\x1bw/*"), root / "train/dog/000.png"]:
        file.write_bytes(b"")
    write(root, tmp_path / "out", ("train", "val"), on_error="skip")
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert warnings == [r"warning: train: 1 classes have no image left: c\x1bw"]


def test_classes_that_a_subset_leaves_without_images_are_named(tmp_path, pets, capsys):
    write(pets, tmp_path, subset=1)
    assert re.search(
        r"^warning: train: 1 classes have no image left: (cat|dog)$", capsys.readouterr().err, re.MULTILINE
    )


def test_an_image_that_takes_more_memory_than_there_is_is_named_and_can_be_skipped(tmp_path, pets, monkeypatch):
    root = draw_folder(tmp_path / "root")
    Image.new("RGB", (500, 500)).save(root / "train/dog/large.png")
    asarray = np.asarray

    def asarray_of_small_ones(image):
        if getattr(image, "size", None) == (500, 500):
            raise MemoryError
        return asarray(image)

    monkeypatch.setattr(pixels.np, "asarray", asarray_of_small_ones)
    with pytest.raises(ValueError, match=r"cannot store .*/dog/large\.png: there is not enough memory to store it"):
        write(root, tmp_path / "out")
    assert list(Manifest.read(write(root, tmp_path / "out", on_error="skip")).skipped) == ["dog/large.png"]


def test_what_was_skipped_is_remembered_when_started_again(tmp_path, broken, capsys):
    beton = write(broken[0], tmp_path, on_error="skip")
    assert f"4 files left out, listed with the reasons in {beton}.skipped.csv" in capsys.readouterr().out
    write(broken[0], tmp_path, on_error="skip")
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(FileExistsError, match=r"it leaves out 4 files, allowed with --write\.on_error=skip"):
        write(broken[0], tmp_path)


def test_a_list_of_skipped_files_goes_when_they_are_mended(tmp_path, broken):
    root, files = broken
    shutil.copytree(root, tmp_path / "root", symlinks=True)
    write(tmp_path / "root", tmp_path / "out", on_error="skip")
    for file in files:
        (tmp_path / "root/train" / file).unlink()
    write(tmp_path / "root", tmp_path / "out", overwrite=True)
    assert names(tmp_path / "out") == ["train.beton", "train.beton.json", "train.beton.mcu"]


def test_damaged_images_and_killed_writers():
    words = [sys.executable, REPOSITORY / "soak/writing.py", "--files=60", "--kills=3"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failures: 0" in done.stdout


def test_nothing_but_broken_files_is_an_error(tmp_path):
    root = draw_folder(tmp_path / "root", train=1)
    for file in root.glob("train/*/*"):
        file.write_bytes(b"")
    (root / "train/dog/000.png").unlink()
    (root / "train/dog/000.png").symlink_to("nowhere.png")
    with pytest.raises(ValueError, match=r"none of the 2 files can be stored; .*/cat/000.png: not an image"):
        write(root, tmp_path / "out", on_error="skip")
    assert names(tmp_path / "out") == []
