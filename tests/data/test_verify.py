import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ffcv_imagenet.data.format.beton import read_samples
from ffcv_imagenet.data.format.index import EntryIndex
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.verify import decode_whole, main, verify

#: Where a child process finds this file and the helpers.
TEST_PATHS = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "helpers")]


@pytest.fixture
def beton(digits, tmp_path) -> Path:
    for file in digits.glob("val.beton*"):
        shutil.copy(file, tmp_path)
    return tmp_path / "val.beton"


def change(path, position, data):
    with path.open("r+b") as file:
        file.seek(position)
        file.write(data)


def test_a_whole_file_passes_with_a_line(beton, capsys):
    main([str(beton)])
    main([str(beton), "--decode"])
    whole = f"{beton} (31 images of 3 classes) is whole: tables, "
    assert capsys.readouterr().out == f"{whole}checksum, index\n{whole}every image decoded, checksum, index\n"
    EntryIndex.path(beton).unlink()
    assert verify(beton) == f"{whole}checksum"


def test_without_a_manifest_it_says_what_cannot_be_checked(beton):
    Manifest.path(beton).unlink()
    line = verify(beton, decode=True)
    assert "no fault found (tables, every image decoded); it has no manifest, so that nothing tells changed" in line


def test_a_damaged_image_is_named_with_its_place_and_class(beton):
    samples = read_samples(beton)
    jpegs = np.flatnonzero(samples.is_jpeg)
    for number in (jpegs[-1], jpegs[-3]):  # the first one is found, not the first that was damaged
        change(beton, int(samples.pointer[number]) + 3, bytes(30))
    first = int(samples.pointer[number])
    place = rf"sample {number} \(bytes {first} to {first + int(samples.size[number]) - 1}, class '2'\)"
    with pytest.raises(ValueError, match=rf"val\.beton is damaged: {place}: malformed JPEG header"):
        verify(beton, decode=True)
    with pytest.raises(ValueError, match=r"its checksum is .*; --decode looks for an image that is broken"):
        verify(beton)
    Manifest.path(beton).unlink()
    with pytest.raises(ValueError, match=rf"sample {number} \(bytes .*, class 2\)"):
        verify(beton, decode=True)


def test_one_changed_bit_anywhere_is_found(beton):
    samples = read_samples(beton)
    raw = int(np.flatnonzero(~samples.is_jpeg)[0])
    content = beton.read_bytes()
    for position in (int(samples.pointer[raw]) + 100, len(content) // 4, len(content) - 3):
        change(beton, position, bytes([content[position] ^ 4]))
        with pytest.raises(ValueError, match="is damaged"):
            verify(beton, decode=True)
        change(beton, position, content[position : position + 1])
    assert "is whole" in verify(beton)


def test_a_damaged_index_is_found(beton):
    index = EntryIndex.path(beton)
    change(index, index.stat().st_size - 9, b"\x55\xaa")
    with pytest.raises(ValueError, match=r"val\.beton\.mcu is damaged"):
        verify(beton)


def test_the_decoded_images_are_all_there_in_order(beton):
    samples = read_samples(beton)
    parts = [(numbers, codes.copy()) for numbers, _, codes in decode_whole(samples, np.fromfile(beton, np.uint8))]
    assert np.array_equal(np.concatenate([numbers for numbers, _ in parts]), np.arange(31))
    assert not np.concatenate([codes for _, codes in parts]).any()


@pytest.mark.slow
def test_a_loader_after_it_compiles_no_second_loop(digits):
    # With a second signature numba's type inference of a loader's code does not end.
    script = (
        "import sys; from pathlib import Path; import numpy as np; sys.path[:0] = sys.argv[2:]\n"
        "from test_loader import copies, decode_batch, val_loader\n"
        "from ffcv_imagenet.data.verify import decode_whole, read_samples\n"
        "beton = Path(sys.argv[1]) / 'val.beton'\n"
        "for _ in decode_whole(read_samples(beton), np.fromfile(beton, np.uint8)): pass\n"
        "copies(val_loader(beton.parent), 0, 32)\n"
        "print(len(decode_batch.signatures))"
    )
    command = [sys.executable, "-c", script, str(digits), *TEST_PATHS]
    assert subprocess.run(command, capture_output=True, text=True, timeout=200).stdout == "1\n"


def test_the_command_exits_with_2_and_one_line(beton):
    with beton.open("r+b") as file:
        file.truncate(1000)
    command = [sys.executable, "-m", "ffcv_imagenet.data.verify", str(beton)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: .*val\.beton is damaged: it has 1000 bytes, its manifest says \d+\n", done.stderr)
