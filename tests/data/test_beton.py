"""Opening a .beton file, and what is refused. Random damage: soak/mutations.py."""

import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from ffcv.fields import FloatField, IntField, RGBImageField
from ffcv.fields.rgb_image import IMAGE_MODES
from ffcv.reader import Reader
from ffcv.types import (
    ALLOC_TABLE_TYPE,
    CURRENT_VERSION,
    TYPE_ID_HANDLER,
    FieldDescType,
    HeaderType,
    get_metadata_type,
)
from ffcv.writer import DatasetWriter
from images import draw

from ffcv_imagenet.data.format import records
from ffcv_imagenet.data.format.beton import read_samples
from ffcv_imagenet.data.format.manifest import Manifest

SAMPLES, RECORD = 31, 24
METADATA = HeaderType.itemsize + 2 * FieldDescType.itemsize


@pytest.fixture
def beton(digits, tmp_path) -> Path:
    """A copy of the digits' val.beton with its manifest."""
    for file in digits.glob("val.beton*"):
        shutil.copy(file, tmp_path)
    return tmp_path / "val.beton"


def change(beton, position, data):
    with beton.open("r+b") as file:
        file.seek(position if position >= 0 else beton.stat().st_size + position)
        file.write(data)


def number(value, size=8):
    return int(value).to_bytes(size, "little", signed=value < 0)


def test_the_records_are_those_of_ffcv():
    assert records.VERSION == CURRENT_VERSION
    assert (IMAGE_MODES["jpg"], IMAGE_MODES["raw"]) == (records.JPEG_MODE, records.RAW_MODE)
    kinds = {"image": RGBImageField, "label": IntField}
    assert {name: TYPE_ID_HANDLER[field.type_id] for name, field in records.FIELDS.items()} == kinds
    pairs = [(records.HEADER, HeaderType), (records.FIELD_DESCRIPTOR, FieldDescType)]
    pairs += [(records.ALLOCATION, ALLOC_TABLE_TYPE)]
    pairs += [(field.record, kinds[name]().metadata_type) for name, field in records.FIELDS.items()]
    for names in (("image", "label"), ("label", "image")):
        pairs += [(records.sample_type(names), get_metadata_type([kinds[name]() for name in names]))]
    for ours, theirs in pairs:
        assert ours == theirs
        assert ours.isalignedstruct == theirs.isalignedstruct
    assert all(not kind().to_binary().tobytes().strip(b"\0") for kind in kinds.values())  # no arguments


def test_the_samples_are_those_that_ffcv_reads(beton):
    samples, reader = read_samples(beton, Manifest.read(beton)), Reader(str(beton))
    assert np.array_equal(samples.metadata, reader.metadata)
    assert samples.fields == tuple(reader.handlers)
    assert np.array_equal(samples.label, reader.metadata["f1"])
    assert np.array_equal(samples.size, reader.alloc_table["size"])
    assert samples.metadata.flags.aligned


@pytest.mark.parametrize("names", [("image", "label"), ("label", "image")])
def test_a_file_of_stock_ffcv_with_several_workers_is_read(tmp_path, names):
    fields = {"image": RGBImageField(write_mode="proportion", compress_probability=0.5), "label": IntField()}
    data = [{"image": draw(20, 30, seed=i), "label": i} for i in range(40)]
    rows = [tuple(row[name] for name in names) for row in data]
    path = tmp_path / "ffcv.beton"
    writer = DatasetWriter(str(path), {name: fields[name] for name in names}, num_workers=2)
    writer.from_indexed_dataset(rows, chunksize=3)
    samples = read_samples(path)
    assert samples.label.tolist() == list(range(40))
    content = np.fromfile(path, np.uint8)
    raw = np.flatnonzero(~samples.is_jpeg)
    assert 0 < len(raw) < 40
    for i in raw.tolist():
        start, size = int(samples.pointer[i]), int(samples.size[i])
        assert np.array_equal(content[start : start + size].reshape(20, 30, 3), data[i]["image"])


def test_a_folder_is_refused_with_the_files_in_it(digits):
    for read in (read_samples, Manifest.read):
        with pytest.raises(FileNotFoundError) as error:
            read(digits)
        told = (
            f"{digits} is a folder, allowed is a .beton file, such as {digits / 'train.beton'}, {digits / 'val.beton'}"
        )
        assert str(error.value) == f"data set not found: {told}"


def test_what_is_no_data_set_of_images_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="data set not found"):
        read_samples(tmp_path / "none.beton")
    with pytest.raises(FileNotFoundError, match=r"is a folder, allowed is a .beton file, which .* makes of images"):
        read_samples(tmp_path)
    path = tmp_path / "x.beton"
    DatasetWriter(str(path), {"image": RGBImageField(), "label": FloatField()}, num_workers=1).from_indexed_dataset(
        [(draw(8, 8), 1.0)]
    )
    with pytest.raises(ValueError, match=r"has a field 'label' of type 0, allowed are image \(RGB\) and label"):
        read_samples(path)
    DatasetWriter(str(path), {"image": RGBImageField()}, num_workers=1).from_indexed_dataset([(draw(8, 8),)])
    with pytest.raises(ValueError, match="has 1 fields, allowed are two"):
        read_samples(path)
    for content in (b"", b"PK\3\4", b"x" * 10_000):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.beton is not a \.beton file"):
            read_samples(path)


#: Of each kind of damage: where, what, and the message. Every position is tried with and without the manifest.
DAMAGE = [
    (0, number(1, 2), "is not a .beton file of FFCV's format 2: it begins with 1"),
    (2, number(3, 2), "has 3 fields"),
    (2, number(0xFFFF, 2), "has 65535 fields"),
    (4, number(3 << 20, 4), "its page size is 3145728, allowed is a power of 2"),
    (4, number(0, 4), "its page size is 0"),
    (4, number(16 << 20, 4), "do not fit its header|pages"),
    (8, number(SAMPLES - 1), "do not fit its header, which says 30 samples"),
    (8, number(0), "which says 0 samples"),
    (8, number(2**64 - 1), "which says 18446744073709551615 samples"),
    (8, number(2**61), "do not fit its header"),  # 24 bytes each wrap around to none
    (16, number(0), "it was not written to its end"),
    (16, number(2**64 - 8), "an allocation table at byte 18446744073709551608"),
    (HeaderType.itemsize, number(1, 1), "has a field 'label' of type 1, .* one of each"),
    (HeaderType.itemsize + FieldDescType.itemsize, number(200, 1), "has a field 'label' of type 200"),
    (HeaderType.itemsize + FieldDescType.itemsize, b"\2image\0", "has a field 'image' of type 2"),
    (METADATA + 2 * RECORD, number(2, 1), r"sample 2 \(byte \d+\): it is neither a JPEG nor raw"),
    (METADATA + 3 * RECORD + 1, number(0, 2), r"sample 3 \(byte \d+\): it has no width"),
    (METADATA + 3 * RECORD + 3, number(0, 2), r"sample 3 \(byte \d+\): it has no width or no height"),
    (METADATA + 4 * RECORD + 5, number(0), r"sample 4 \(byte 0\): it lies outside the file's pages"),
    (METADATA + 4 * RECORD + 5, number(2**64 - 1), r"sample 4 .*: it lies outside the file's pages"),
    (METADATA + 5 * RECORD + 5, number(9 << 20), "sample 5 .*: metadata and allocation table|its size leads"),
    (METADATA + 6 * RECORD + 16, number(-1), "sample 6 .*: its label is none of the classes"),
    (-2 * RECORD, number(5), "sample 29 is not in the allocation table"),
    (-2 * RECORD, number(2**63), "sample 29 is not in the allocation table"),
    (-2 * RECORD + 8, number(8 << 20), "sample 29 .*: metadata and allocation table have it at different"),
    (-2 * RECORD + 16, number(0), "sample 29 .*: its size leads out of its page"),
    (-2 * RECORD + 16, number(2**64 - 1), "sample 29 .*: its size leads out of its page"),
    (-2 * RECORD + 16, number(7 << 20), "sample 30 .*: it begins inside of another one|does not fit its raw pixels"),
]


@pytest.mark.parametrize("with_manifest", [True, False])
@pytest.mark.parametrize(("position", "data", "message"), DAMAGE)
def test_damaged_tables_are_named(beton, position, data, message, with_manifest):
    change(beton, position, data)
    with pytest.raises(ValueError, match=message) as caught:
        read_samples(beton, Manifest.read(beton) if with_manifest else None)
    assert str(caught.value).startswith(f"{beton} ")
    assert "\n" not in str(caught.value)


def test_raw_pixels_have_the_size_that_width_and_height_say(beton):
    sample = int(np.flatnonzero(~read_samples(beton).is_jpeg)[0])
    change(beton, METADATA + sample * RECORD + 1, number(41, 2))
    with pytest.raises(ValueError, match=rf"sample {sample} \(byte \d+\): its size does not fit its raw pixels"):
        read_samples(beton)


@pytest.mark.parametrize(
    ("position", "data", "message"),
    [
        (METADATA + 16, number(3), "sample 0 .*: its label is none of the classes"),
        (METADATA + 16, number(2), "the checksum of its tables differs"),
        (METADATA + 7 * RECORD + 3, number(77, 2), "checksum of its tables differs|raw pixels"),
        (HeaderType.itemsize + 500, b"\1", "the checksum of its tables differs"),
    ],
)
def test_the_manifest_tells_what_the_tables_cannot(beton, position, data, message):
    change(beton, position, data)
    with pytest.raises(ValueError, match=message):
        read_samples(beton, Manifest.read(beton))


def test_a_manifest_of_another_file_is_refused(beton, digits):
    manifest = Manifest.read(digits / "train.beton")
    with pytest.raises(ValueError, match="it has 31 samples, its manifest says 96"):
        read_samples(beton, manifest)


@pytest.mark.parametrize("size", [23, 24, METADATA - 1, METADATA, 5000, 9 << 20])
def test_a_truncated_file_is_refused(beton, size):
    with beton.open("r+b") as file:
        file.truncate(size)
    with pytest.raises(ValueError, match=rf"is damaged: it has {size} bytes, its manifest says"):
        Manifest.read(beton)
    with pytest.raises(ValueError, match="do not fit its header" if size >= METADATA else "is not a .beton file"):
        read_samples(beton)
    assert ALLOC_TABLE_TYPE.itemsize == RECORD


@pytest.fixture
def soak(monkeypatch):
    """Imports a file of soak/."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "soak")
    return importlib.import_module


@pytest.mark.slow
def test_random_damage_is_an_error_or_the_right_pixels(soak, tmp_path):
    outcome = soak("mutations").run(150, seed=1, folder=tmp_path)
    assert outcome.failures == []
    assert outcome.counts["kept: error"] > 30
    assert outcome.counts["forged: right"] > 0


def test_abandoned_iterators_leave_nothing_behind(soak, tmp_path):
    abandoned = soak("abandoned")
    growth = abandoned.run(60, tmp_path)
    assert growth.threads <= 0
    assert growth.files <= 0
    assert growth.mib < abandoned.ALLOWED_MIB
