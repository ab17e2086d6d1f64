import hashlib
import shutil
import struct

import numpy as np
import pytest
import torch

from ffcv_imagenet import native
from ffcv_imagenet.data.format.beton import read_samples
from ffcv_imagenet.data.format.index import EVERY, EntryIndex
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.index import main
from ffcv_imagenet.data.write.index import write_index


@pytest.fixture
def beton(digits, tmp_path):
    """A copy of the digits' train.beton with manifest and index."""
    for file in digits.glob("train.*"):
        shutil.copy(file, tmp_path)
    return tmp_path / "train.beton"


def opened(beton):
    manifest = Manifest.read(beton)
    return EntryIndex.open(beton, manifest.checksum, manifest.num_samples)


def test_the_writers_index_holds_the_entry_points_of_every_jpeg(beton):
    index, samples = opened(beton), read_samples(beton)
    content = np.fromfile(beton, np.uint8)
    assert index.every == EVERY
    assert 0 < samples.is_jpeg.sum() < len(samples.is_jpeg)
    for i in range(len(samples.pointer)):
        entries = index.entries[int(index.offsets[i]) : int(index.offsets[i + 1])]
        if samples.is_jpeg[i]:
            jpeg = content[int(samples.pointer[i]) : int(samples.pointer[i] + samples.size[i])]
            assert entries.tobytes() == native.build_index(jpeg, EVERY) != b""
        else:
            assert len(entries) == 0


@pytest.mark.parametrize("with_manifest", [True, False])
def test_the_command_makes_the_same_index_for_an_existing_file(beton, with_manifest, capsys):
    path = EntryIndex.path(beton)
    whole = path.read_bytes()
    path.unlink()
    if not with_manifest:
        Manifest.path(beton).unlink()
    main([str(beton), "--num-workers=2"])
    assert path.read_bytes() == whole
    assert str(path) in capsys.readouterr().out


def test_no_index_is_none(beton):
    EntryIndex.path(beton).unlink()
    assert opened(beton) is None


def change(path, position, data):
    with path.open("r+b") as file:
        file.seek(position)
        file.write(data)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.write_bytes(b""), "is not an entry-point index"),
        (lambda p: p.write_bytes(b"x" * 500), "is not an entry-point index"),
        (lambda p: change(p, 8, struct.pack("<I", 99)), "version 99, allowed is 1"),
        (lambda p: change(p, 32, b"\0" * 32), "belongs to another .beton"),
        (lambda p: change(p, 16, struct.pack("<Q", 5)), "belongs to another .beton"),
        (lambda p: change(p, 200, b"\xff" * 8), "offsets have another checksum"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "is damaged"),
        (lambda p: p.write_bytes(p.read_bytes() + b"\0"), "is damaged"),
    ],
)
def test_a_foreign_or_damaged_index_is_refused_with_the_way_out(beton, spoil, message):
    spoil(EntryIndex.path(beton))
    with pytest.raises(ValueError, match=message) as error:
        opened(beton)
    assert f"python -m ffcv_imagenet.data.index {beton}" in str(error.value)


def test_verify_finds_a_changed_entry_and_passes_a_whole_index(beton, capsys):
    main(["--verify", str(beton)])
    assert "is whole" in capsys.readouterr().out
    path = EntryIndex.path(beton)
    change(path, path.stat().st_size - 9, b"\x55\xaa")
    with pytest.raises(ValueError, match=r"train\.beton\.mcu is damaged: .*another checksum"):
        main(["--verify", str(beton)])
    path.unlink()
    with pytest.raises(FileNotFoundError, match="has no index"):
        main(["--verify", str(beton)])


def test_the_index_of_an_older_file_is_refused(beton, digits):
    shutil.copy(digits / "val.beton.mcu", EntryIndex.path(beton))
    with pytest.raises(ValueError, match="belongs to another"):
        opened(beton)


def test_a_damaged_jpeg_is_named(beton):
    samples = read_samples(beton)
    number = int(np.flatnonzero(samples.is_jpeg)[3])
    change(beton, int(samples.pointer[number]), b"\0" * 20)
    with pytest.raises(ValueError, match=rf"sample {number} is damaged: "):
        write_index(beton)


@pytest.mark.parametrize("content", [b"", b"x" * 10_000])
def test_what_is_no_beton_is_refused(tmp_path, content):
    (tmp_path / "x.beton").write_bytes(content)
    with pytest.raises(ValueError, match=r"is not a \.beton file"):
        write_index(tmp_path / "x.beton")
    assert not EntryIndex.path(tmp_path / "x.beton").exists()


def test_crops_are_the_same_with_and_without_the_index(digits, tmp_path):
    from digit_loaders import copies, train_loader
    from equality import same

    shutil.copytree(digits, tmp_path / "plain")
    (tmp_path / "plain" / "train.beton.mcu").unlink()
    assert train_loader(digits).decoder.index is not None
    assert train_loader(tmp_path / "plain").decoder.index is None
    assert same(copies(train_loader(digits), 1, 48), copies(train_loader(tmp_path / "plain"), 1, 48))


def test_a_wrong_entry_is_never_more_than_an_error_or_wrong_pixels(beton):
    """Entries are not read when an index is opened: whatever they say, it ends with pixels or with an error."""
    from digit_loaders import train_loader

    index = EntryIndex.path(beton)
    whole = np.fromfile(index, np.uint8)
    start = whole.size - opened(beton).entries.size
    generator = np.random.default_rng(0)
    outcomes = set()
    for _ in range(5):
        spoiled = whole.copy()
        places = generator.integers(start, whole.size, 200)
        spoiled[places] = generator.integers(0, 256, 200)
        spoiled.tofile(index)
        try:
            for batch in train_loader(beton.parent).epoch(0, 32):
                assert batch.images.dtype == torch.uint8
            outcomes.add("pixels")
        except ValueError as error:
            assert "is damaged" in str(error)  # noqa: PT017
            outcomes.add("error")
    assert outcomes


@pytest.mark.parametrize("offset", [0, 2**40])
def test_offsets_that_lead_outside_are_refused_also_with_a_right_checksum(beton, offset):
    path = EntryIndex.path(beton)
    content = bytearray(path.read_bytes())
    offsets = np.frombuffer(content, "<u8", Manifest.read(beton).num_samples + 1, offset=128).copy()
    offsets[np.flatnonzero(offsets)[3]] = offset
    content[128 : 128 + offsets.nbytes] = offsets.tobytes()
    content[64:96] = hashlib.sha256(offsets.tobytes()).digest()
    path.write_bytes(content)
    with pytest.raises(ValueError, match="its offsets do not fit its size"):
        opened(beton)
