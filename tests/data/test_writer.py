import csv
import dataclasses
import fcntl
import itertools
import json
import os
import re
import resource
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import SimpleRGBImageDecoder
from ffcv.loader import Loader
from ffcv.reader import Reader
from ffcv.writer import DatasetWriter
from images import draw, draw_folder, read_image
from PIL import Image

from ffcv_imagenet.data.format.index import EntryIndex, IndexWriter, verify_index
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.sources import pixels
from ffcv_imagenet.data.sources.folder import scan_splits
from ffcv_imagenet.data.write import splits as writer
from ffcv_imagenet.data.write.encode import EncodedImage
from ffcv_imagenet.data.write.index import write_index
from ffcv_imagenet.data.write.pages import BetonWriter
from ffcv_imagenet.data.write.parameters import PRESETS, resolve_parameters, sample_order, storage_modes
from ffcv_imagenet.data.write.splits import write_splits
from ffcv_imagenet.files import exclusive_file

REPOSITORY = Path(__file__).parents[2]


def write(root, out, splits=("train",), num_workers=1, overwrite=False, on_error="fail", **options):
    options = {"page_size_mib": 2, **options}
    write_splits(root, out, splits, resolve_parameters(**options), num_workers, overwrite, on_error)
    return out / "train.beton"


SCRIPT = REPOSITORY / "write_datasets.py"


@pytest.fixture
def command(monkeypatch, capsys):
    """Run write_datasets.py in this process (importing torch once more takes seconds)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        captured = capsys.readouterr()
        return exit.value.code, captured.out, captured.err

    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def stored(beton):
    """(is_jpeg, data) of every sample of a .beton, by FFCV's tables."""
    reader = Reader(str(beton))
    content = beton.read_bytes()
    sizes = dict(zip(reader.alloc_table["ptr"].tolist(), reader.alloc_table["size"].tolist(), strict=True))
    return [
        (image["mode"] == 0, content[image["data_ptr"] : image["data_ptr"] + sizes[int(image["data_ptr"])]])
        for image in reader.metadata["f0"]
    ]


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    return draw_folder(tmp_path_factory.mktemp("pets"), train=12, val=3)


# The format


class Listed:
    """An indexable data set, as FFCV's writer wants it."""

    def __init__(self, folder):
        self.folder = folder

    def __len__(self):
        return len(self.folder.files)

    def __getitem__(self, index):
        return read_image(str(self.folder.folder / self.folder.files[index])), self.folder.labels[index]


def test_file_is_byte_for_byte_ffcvs(tmp_path):
    root = draw_folder(tmp_path / "root", train=9, size=(300, 400))  # 18 images of 360,000 bytes: 4 pages
    fields = {"image": RGBImageField(write_mode="raw", max_resolution=390), "label": IntField()}
    writer = DatasetWriter(str(tmp_path / "ffcv.beton"), fields, page_size=2 << 20, num_workers=1)
    writer.from_indexed_dataset(Listed(scan_splits(root, ["train"])["train"]))
    ours = write(root, tmp_path / "out", mode="raw", max_resolution=390)
    assert ours.stat().st_size > 4 * (2 << 20)
    assert ours.read_bytes() == (tmp_path / "ffcv.beton").read_bytes()


#: With these a preset stores some of 18 images as JPEG and some raw.
SEED_OF_BOTH = {"rn50": 0, "rn18": 1}


def test_presets_store_the_bytes_that_stock_ffcv_stores(tmp_path):
    """Images above and below the preset's size, as JPEG and PNG; FFCV draws otherwise which of them become JPEGs."""
    folder = tmp_path / "root/train/pet"
    folder.mkdir(parents=True)
    sizes = [(300, 399), (500, 375), (501, 420), (1001, 333), (410, 700), (333, 500)]
    for number, size in enumerate(sizes):
        for extension, options in ((".png", {}), (".jpg", {"quality": 95}), (".jpeg", {"progressive": True})):
            Image.fromarray(draw(*size, seed=number)).save(folder / f"{number}{extension}", **options)
    for preset in SEED_OF_BOTH:
        options = PRESETS[preset]
        beton = write(tmp_path / "root", tmp_path / preset, preset=preset, seed=SEED_OF_BOTH[preset])
        images = scan_splits(tmp_path / "root", ["train"])["train"]
        by_ffcv = {}
        for mode in ("jpg", "raw"):
            path = tmp_path / f"{preset}_{mode}.beton"
            field = RGBImageField(
                write_mode=mode, max_resolution=options["max_resolution"], jpeg_quality=options["jpeg_quality"]
            )
            stock = DatasetWriter(str(path), {"image": field, "label": IntField()}, page_size=2 << 20, num_workers=1)
            stock.from_indexed_dataset(Listed(images))
            by_ffcv[mode] = stored(path)
        ours = stored(beton)
        assert {bool(is_jpeg) for is_jpeg, _ in ours} == {True, False}
        for number, (is_jpeg, data) in enumerate(ours):
            assert (is_jpeg, data) == by_ffcv["jpg" if is_jpeg else "raw"][number], images.files[number]


def test_stock_loader_reads_it(tmp_path, pets):
    beton = write(pets, tmp_path, mode="proportion", jpeg_quality=100)
    folder = scan_splits(pets, ["train"])["train"]
    samples = stored(beton)
    assert 0 < sum(is_jpeg for is_jpeg, _ in samples) < len(samples)
    loader = Loader(
        str(beton),
        batch_size=len(samples),
        num_workers=1,
        pipelines={"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()]},
    )
    images, labels = next(iter(loader))
    assert labels[:, 0].tolist() == folder.labels.tolist() == [0] * 12 + [1] * 12
    for image, file, (is_jpeg, data) in zip(images, folder.files, samples, strict=True):
        if is_jpeg:  # FFCV decodes with libjpeg's faster, less exact transform
            expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
            assert np.abs(image.astype(int) - expected).mean() < 3
        else:
            np.testing.assert_array_equal(image, read_image(str(folder.folder / file)))


def test_jpeg_bytes_are_those_of_opencv(tmp_path, pets):
    beton = write(pets, tmp_path, jpeg_quality=70)
    first = read_image(str(pets / "train/cat/000.png"))
    _, expected = cv2.imencode(".jpg", first[..., ::-1].copy(), [cv2.IMWRITE_JPEG_QUALITY, 70])
    assert stored(beton)[0] == (True, expected.tobytes())


@pytest.mark.parametrize(
    ("sizes", "num_pages"),
    [([1], 1), ([2 << 20], 1), ([1 << 20, 1 << 20], 1), ([1 << 20, (1 << 20) + 1], 2), ([2 << 20, 1, 2 << 20], 3)],
)
def test_no_sample_crosses_a_page(tmp_path, sizes, num_pages):
    page = 2 << 20
    beton = tmp_path / "x.beton"
    with exclusive_file(beton) as file:
        writer = BetonWriter(file, len(sizes), page)
        for label, size in enumerate(sizes):
            writer.append(EncodedImage(False, 1, 1, bytes([label + 1]) * size), label)
        writer.finish()
    table = Reader(str(beton)).alloc_table
    assert table["sample_id"].tolist() == list(range(len(sizes)))
    assert (table["ptr"] // page == (table["ptr"] + table["size"] - 1) // page).all()
    assert beton.stat().st_size == (1 + num_pages) * page + table.nbytes
    assert [data for _, data in stored(beton)] == [bytes([i + 1]) * size for i, size in enumerate(sizes)]


def test_head_larger_than_a_page(tmp_path):
    num_samples = 100_000  # 24 bytes of metadata each
    beton = tmp_path / "x.beton"
    with exclusive_file(beton) as file:
        writer = BetonWriter(file, num_samples, 2 << 20)
        for label in range(num_samples):
            writer.append(EncodedImage(True, 1, 1, b"%06d" % label), label)
        writer.finish()
    reader = Reader(str(beton))
    assert reader.metadata["f1"].tolist() == list(range(num_samples))
    assert reader.alloc_table["ptr"].min() == 2 * (2 << 20)


def test_bytes_do_not_depend_on_the_number_of_workers(tmp_path):
    root = draw_folder(tmp_path / "root", train=40, size=(150, 200))
    options = {"mode": "proportion", "shuffle": True, "subset": 70}
    one = write(root, tmp_path / "one", num_workers=1, **options)
    two = write(root, tmp_path / "two", num_workers=2, **options)
    assert one.read_bytes() == two.read_bytes()
    assert Manifest.read(one).checksum == Manifest.read(two).checksum


# Which images, and how they are stored


def test_proportion_is_drawn_by_seed_and_index():
    half = resolve_parameters(mode="proportion", compress_probability=0.5)
    modes = storage_modes(20_000, half)
    assert storage_modes(100, half) == modes[:100]
    assert abs(modes.count("jpg") / 20_000 - 0.5) < 0.015
    tenth = storage_modes(20_000, dataclasses.replace(half, compress_probability=0.1))
    assert abs(tenth.count("jpg") / 20_000 - 0.1) < 0.01
    assert storage_modes(100, dataclasses.replace(half, seed=1)) != modes[:100]
    assert modes[:8] == ["raw", "raw", "raw", "jpg", "raw", "jpg", "raw", "raw"]  # the same in every version


@pytest.mark.parametrize(("probability", "expected"), [(0.0, "raw"), (1.0, "jpg")])
def test_proportion_of_all_and_none(probability, expected):
    parameters = resolve_parameters(mode="proportion", compress_probability=probability)
    assert set(storage_modes(1000, parameters)) == {expected}


def test_smart_chooses_by_size(tmp_path):
    root = draw_folder(tmp_path / "root", train=1, val=1)
    Image.new("RGB", (4, 4)).save(root / "train/cat/000.png")  # a JPEG's head alone is larger
    Image.new("RGB", (64, 64)).save(root / "train/dog/000.png")
    beton = write(root, tmp_path / "out", mode="smart")
    assert [is_jpeg for is_jpeg, _ in stored(beton)] == [False, True]
    assert Manifest.read(beton).parameters.smart_threshold == 2


def test_subset_and_shuffle():
    parameters = resolve_parameters(subset=30)
    subset = sample_order(100, parameters)
    assert subset.tolist() == sorted(set(subset.tolist()))
    assert len(subset) == 30
    shuffled = sample_order(100, dataclasses.replace(parameters, shuffle=True))
    assert shuffled.tolist() != subset.tolist()
    assert sorted(shuffled) == subset.tolist()
    assert sample_order(100, dataclasses.replace(parameters, seed=1)).tolist() != subset.tolist()
    assert sample_order(100, resolve_parameters()).tolist() == list(range(100))
    assert sorted(sample_order(100, resolve_parameters(shuffle=True))) == list(range(100))
    assert sample_order(100, resolve_parameters(subset=100)).tolist() == list(range(100))


def test_every_sample_of_a_subset_is_as_likely():
    drawn = [sample_order(10, resolve_parameters(subset=3, seed=seed)) for seed in range(1000)]
    counts = np.bincount(np.concatenate(drawn), minlength=10)
    assert counts.min() > 240
    assert counts.max() < 360


def test_shuffled_labels_stay_with_their_images(tmp_path, pets):
    beton = write(pets, tmp_path, mode="raw", shuffle=True, seed=3)
    folder = scan_splits(pets, ["train"])["train"]
    labels = Reader(str(beton)).metadata["f1"].tolist()
    assert labels not in (sorted(labels), sorted(labels, reverse=True))
    expected = {
        read_image(str(folder.folder / file)).tobytes(): label
        for file, label in zip(folder.files, folder.labels, strict=True)
    }
    assert [expected[data] for _, data in stored(beton)] == labels


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("jpg", None, None, None, 90)),
        ({"mode": "raw"}, ("raw", None, None, None, None)),
        ({"mode": "smart"}, ("smart", None, None, 2.0, 90)),
        ({"mode": "smart", "smart_threshold": 0.0}, ("smart", None, None, 0.0, 90)),
        ({"mode": "proportion"}, ("proportion", None, 0.5, None, 90)),
        ({"mode": "proportion", "compress_probability": 0.0}, ("proportion", None, 0.0, None, 90)),
        ({"preset": "rn50"}, ("proportion", 500, 0.5, None, 90)),
        ({"preset": "rn18"}, ("proportion", 400, 0.1, None, 90)),
        ({"preset": "rn18", "compress_probability": 0.3}, ("proportion", 400, 0.3, None, 90)),
        ({"preset": "rn50", "max_resolution": 256, "jpeg_quality": 75}, ("proportion", 256, 0.5, None, 75)),
        ({"preset": "rn50", "mode": "raw"}, ("raw", 500, None, None, None)),
        ({"preset": "rn50", "mode": "smart", "smart_threshold": 3.0}, ("smart", 500, None, 3.0, 90)),
    ],
)
def test_presets_and_defaults(given, expected):
    p = resolve_parameters(**given)
    assert (p.mode, p.max_resolution, p.compress_probability, p.smart_threshold, p.jpeg_quality) == expected
    assert p.resize == (None if p.max_resolution is None else "area")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"compress_probability": 0.5}, r"write\.compress_probability: got 0\.5 for write.mode=jpg, .*=proportion"),
        ({"mode": "smart", "compress_probability": 0.5}, r"write\.compress_probability: .*mode=smart"),
        ({"preset": "rn50", "mode": "raw", "compress_probability": 0.5}, r"write\.compress_probability"),
        ({"smart_threshold": 2.0}, r"write\.smart_threshold: got 2\.0 for .*=smart"),
        ({"preset": "rn50", "smart_threshold": 2.0}, r"write\.smart_threshold: .*mode=proportion"),
        ({"mode": "raw", "jpeg_quality": 90}, r"write\.jpeg_quality: got 90 .*jpg \| smart \| proportion"),
        ({"subset": 0}, r"write\.subset: got 0"),
        ({"resize": "area"}, r"write\.resize: got area, .*write\.max_resolution=PIXELS"),
        ({"page_size_mib": 12}, r"write\.page_size_mib: got 12, allowed is a power of 2"),
    ],
)
def test_options_that_do_not_apply(given, message):
    with pytest.raises(ValueError, match=message):
        resolve_parameters(**given)


# Files that are there, whole and not


def test_manifest_tells_what_is_in_the_file(tmp_path, pets):
    beton = write(pets, tmp_path, ("train", "val"), preset="rn18", subset=5)
    manifest = Manifest.read(beton)
    manifest.verify(beton)
    assert manifest.split == "train"
    assert manifest.classes == ("cat", "dog")
    assert manifest.num_samples == sum(manifest.images_per_class) == 5
    assert list(manifest.images_per_class) == np.bincount(Reader(str(beton)).metadata["f1"], minlength=2).tolist()
    assert manifest.source_folder == pets.name
    assert manifest.parameters == resolve_parameters(preset="rn18", subset=5, page_size_mib=2)
    assert set(manifest.versions) == {"ffcv_imagenet", "ffcv", "numpy", "opencv", "pillow"}
    assert manifest.num_bytes == beton.stat().st_size
    assert str(pets) not in Manifest.path(beton).read_text()
    assert names(tmp_path) == [f"{split}.beton{end}" for split in ("train", "val") for end in ("", ".json", ".mcu")]
    assert Manifest.read(tmp_path / "val.beton").split == "val"


def test_finished_output_is_left_alone(tmp_path, pets, capsys):
    beton = write(pets, tmp_path)
    before = beton.stat()
    capsys.readouterr()
    write(pets, tmp_path)
    assert beton.stat() == before
    assert capsys.readouterr().out == f"train: {beton} is there already, with these options: nothing to do\n"


def cut(beton):
    os.truncate(beton, 1000)


def other_split(beton):
    beton.write_bytes(b"x")
    Manifest.path(beton).unlink()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda beton: None, {"seed": 1}, r"\(seed is 0, not 1\): give another --out\.dir.*--write\.overwrite=1"),
        (lambda beton: None, {"max_resolution": 9}, r"max_resolution is None, not 9, resize is None, not area"),
        (cut, {}, "train.beton is damaged"),
        (lambda beton: Manifest.path(beton).write_text("{}"), {}, "not a valid manifest"),
        (other_split, {}, "has no manifest"),
    ],
)
def test_other_output_is_refused_and_replaced_only_on_demand(tmp_path, pets, change, options, message):
    beton = write(pets, tmp_path)
    change(beton)
    before = beton.read_bytes()
    with pytest.raises(FileExistsError, match=message):
        write(pets, tmp_path, ("val", "train"), **options)
    assert beton.read_bytes() == before
    assert not (tmp_path / "val.beton").exists()
    write(pets, tmp_path, overwrite=True, **options)
    Manifest.read(beton).verify(beton)


def test_output_of_other_images_is_refused(tmp_path, pets):
    write(pets, tmp_path / "out")
    other = draw_folder(tmp_path / "other", train=11, val=3)
    with pytest.raises(FileExistsError, match=f"its images are not those of {other}/train"):
        write(other, tmp_path / "out")


def test_subset_larger_than_a_split_is_refused_before_writing(tmp_path, pets):
    with pytest.raises(ValueError, match=r"write\.subset: got 7, but .*/val has 6 images"):
        write(pets, tmp_path / "out", ("train", "val"), subset=7)
    assert not (tmp_path / "out").exists()


def test_two_processes_cannot_write_one_file(tmp_path, pets):
    with (tmp_path / "train.beton.partial").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(FileExistsError, match=r"another process is writing .*train\.beton\.partial"):
            write(pets, tmp_path)
        assert names(tmp_path) == ["train.beton.partial"]


def test_a_file_that_another_process_finished_since_the_check_is_not_replaced(tmp_path, pets, monkeypatch):
    others = write(pets, tmp_path / "others", seed=1)
    out, check = tmp_path / "out", writer._check_free_space

    def meanwhile(*arguments):
        check(*arguments)
        shutil.copytree(others.parent, out, dirs_exist_ok=True)

    monkeypatch.setattr(writer, "_check_free_space", meanwhile)
    with pytest.raises(FileExistsError, match=r"another process has just written .*/out/train\.beton$"):
        write(pets, out)
    assert (out / "train.beton").read_bytes() == others.read_bytes()
    assert names(out) == names(others.parent)
    Manifest.read(out / "train.beton").verify(out / "train.beton")
    verify_index(out / "train.beton")


def test_an_index_that_another_process_is_writing_is_left_to_it(tmp_path, pets):
    beton = write(pets, tmp_path / "out")
    index = EntryIndex.path(beton)
    before = index.read_bytes()
    with exclusive_file(index.with_name(f".{index.name}.partial")) as file:
        file.write(b"half")
        with pytest.raises(FileExistsError, match="another process is writing"):
            write_index(beton, 1)
        with pytest.raises(FileExistsError, match="another process is writing"):
            write(pets, tmp_path / "out", overwrite=True)
        assert index.read_bytes() == before
        assert "train.beton.partial" not in names(tmp_path / "out")


def test_many_writers_of_one_output_stopped_at_any_moment_leave_it_whole(tmp_path):
    root = draw_folder(tmp_path / "root", train=30, val=1)
    generator, processes = np.random.default_rng(0), []
    for number in range(6):
        words = [sys.executable, SCRIPT, f"--data.root={root}", f"--out.dir={tmp_path}/out", "--write.splits=train"]
        words += ["--write.num_workers=1", "--write.page_size_mib=2", f"--write.seed={number % 2}"]
        processes.append(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    try:
        deadline = time.monotonic() + 60
        while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
            running = [process for process in processes if process.poll() is None]
            stopped = running[int(generator.integers(len(running)))] if running else None
            if stopped is not None:
                stopped.send_signal(signal.SIGSTOP)
                time.sleep(float(generator.uniform(0, 0.3)))
                stopped.send_signal(signal.SIGCONT)
                time.sleep(float(generator.uniform(0, 0.1)))
        results = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert {code for _, code in results} <= {0, 2}
    for error, code in results:
        assert code == 0 or re.search("error: .*(another process|is there already)", error.splitlines()[-1])
    assert 0 in [code for _, code in results]
    assert names(tmp_path / "out") == ["train.beton", "train.beton.json", "train.beton.mcu"]
    Manifest.read(tmp_path / "out/train.beton").verify(tmp_path / "out/train.beton")
    verify_index(tmp_path / "out/train.beton")


def test_leftover_of_a_killed_run_does_not_matter(tmp_path, pets):
    (tmp_path / "train.beton.partial").write_bytes(b"x" * (10 << 20))
    beton = write(pets, tmp_path)
    Manifest.read(beton).verify(beton)
    assert names(tmp_path) == ["train.beton", "train.beton.json", "train.beton.mcu"]


def test_failure_keeps_the_file_that_is_to_be_replaced(tmp_path, pets):
    root = draw_folder(tmp_path / "root")
    beton = write(root, tmp_path / "out")
    (root / "train/dog/003.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"dog/003\.png"):
        write(root, tmp_path / "out", overwrite=True)
    assert names(tmp_path / "out") == ["train.beton", "train.beton.json", "train.beton.mcu"]
    Manifest.read(beton).verify(beton)


def test_output_that_cannot_be_written_is_one_clear_line(tmp_path, pets):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, limits[1]))  # the closest to a full disk
    try:
        with pytest.raises(OSError, match=r"^cannot write .*/train\.beton\.partial: File too large$"):
            write(pets, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == []


def test_a_full_disk_under_the_index_is_named(tmp_path, pets, monkeypatch):
    append = IndexWriter.append

    def append_more(self, entries):  # than the .beton has
        append(self, bytes(1 << 20))

    monkeypatch.setattr(IndexWriter, "append", append_more)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, limits[1]))
    try:
        with pytest.raises(OSError, match=r"^cannot write .*/train\.beton\.mcu: File too large$"):
            write(pets, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == []


def test_the_close_of_the_index_does_not_hide_the_first_error(tmp_path, pets, monkeypatch):
    def fail(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))  # what the index has buffered does not fit any more
        raise OSError("cannot write first: No space left on device")

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(BetonWriter, "finish", fail)
    try:
        with pytest.raises(OSError, match=r"^cannot write first"):
            write(pets, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == []


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


def test_too_little_space_is_said_before_the_work_starts(tmp_path, pets, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=4_000_000))
    with pytest.raises(
        OSError, match=rf"not enough space in {tmp_path}/out: about 4\.195 MB are needed .* 4 MB are free"
    ):
        write(pets, tmp_path / "out", mode="raw")
    assert names(tmp_path / "out") == []


def test_expected_size_is_about_the_size(tmp_path, pets):
    beton = write(pets, tmp_path, mode="raw")
    folder = scan_splits(pets, ["train"])["train"]
    expected = writer._expected_bytes(folder, resolve_parameters(mode="raw", page_size_mib=2), 1)
    assert expected == beton.stat().st_size + 8 * 24  # the index has 8 bytes for each sample without entries


def test_a_file_that_does_not_read_back_is_not_kept(tmp_path, pets, monkeypatch):
    finish = BetonWriter.finish

    def finish_on_a_bad_disk(self):
        checksum = finish(self)
        self._file.seek(self._data_start + 5)
        self._file.write(b"\xff\x00")
        return checksum

    monkeypatch.setattr(BetonWriter, "finish", finish_on_a_bad_disk)
    with pytest.raises(ValueError, match=r"train\.beton\.partial is damaged: its checksum"):
        write(pets, tmp_path)
    assert names(tmp_path) == []


# The command


def test_command_writes_both_splits(tmp_path, pets):
    words = [sys.executable, SCRIPT, f"--data.root={pets}", f"--out.dir={tmp_path}/a/b", "--write.num_workers=1"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines.pop(0).endswith("format folder: train has 24 images in 2 classes, val has 6 images in 2 classes")
    assert len(lines) == 2
    pattern = r"train: 24 images, 2 classes, [\d.]+ MB, [\d.]+ s, \d+ images/s, .*/a/b/train\.beton"
    assert re.fullmatch(pattern, lines[0])
    assert lines[1].startswith("val: 6 images")
    assert not done.stderr  # outside of a terminal a line comes after a minute
    assert json.loads((tmp_path / "a/b/val.beton.json").read_text())["parameters"]["mode"] == "jpg"


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def group_exists(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


#: The command on a file system that does not answer for one file, which is not one from which the size is estimated.
UNANSWERED = """
import runpy, sys, time
from ffcv_imagenet.data.sources import folder
read = folder.read_file
folder.read_file = lambda path: time.sleep(1000) if path.endswith("cat/004.png") else read(path)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_ctrl_c_stops_at_once_and_cleans_up(tmp_path):
    root = draw_folder(tmp_path / "root", train=40)
    words = [sys.executable, "-c", UNANSWERED, SCRIPT, f"--data.root={root}", f"--out.dir={tmp_path}/out"]
    process = subprocess.Popen(words, start_new_session=True, stderr=subprocess.PIPE)
    try:
        wait_until((tmp_path / "out/train.beton.partial").exists)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        process.communicate(timeout=10)
        assert process.returncode not in (0, 2)
        assert names(tmp_path / "out") == []
        wait_until(lambda: not group_exists(process.pid))
    finally:
        if group_exists(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def test_command_help_names_every_option(command):
    status, out, _ = command("--help")
    assert status == 0
    for name in ("data.root", "out.dir", "write.preset", "write.mode", "write.overwrite", "write.page_size_mib"):
        assert f"--{name}" in out
    for preset in PRESETS:
        assert preset in out


def test_command_names_a_broken_file_and_leaves_nothing(tmp_path, command):
    root = draw_folder(tmp_path / "root", extension=".jpg")
    broken = root / "train/dog/002.jpg"
    broken.write_bytes(broken.read_bytes()[:-100])
    status, out, error = command(f"--data.root={root}", f"--out.dir={tmp_path}/out", "--write.num_workers=2")
    assert (status, out.count("\n")) == (2, 1)
    assert error.splitlines()[-1].startswith(f"error: cannot store {broken}: image file is truncated")
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("argument", "start"),
    [
        ("--write.mode=png", "error: --write.mode: got 'png'"),
        ("--write.subset=1000", "error: --write.subset: got 1000"),
        ("--write.page_size_mib=3", "error: --write.page_size_mib: got 3"),
        ("--write.smart_threshold=3", "error: --write.smart_threshold: got 3.0"),
        ("--data.root=/nowhere", "error: images not found: /nowhere"),
    ],
)
def test_command_rejects_mistakes(tmp_path, pets, command, argument, start):
    status, _, error = command(f"--data.root={pets}", f"--out.dir={tmp_path}/out", argument)
    assert status == 2
    assert error.startswith(start)
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
