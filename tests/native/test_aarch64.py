"""The decoder on ARM, in an emulator: the pixels of x86, bit by bit, with NEON (by SIMDe) and without."""

import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from jpeg_samples import SUBSAMPLINGS, encode, encode_440, noise, photographs, waves

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "ffcv_imagenet" / "native"
#: What needs libturbojpeg or Python, which a cross compiler does not have.
LEFT_OUT = {"turbojpeg.c", "fallback_turbojpeg.c", "whole_image.c", "module.c"}
SOURCES = sorted(str(path) for path in NATIVE.glob("*.c") if path.name not in LEFT_OUT)
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
    """Files of every layout, smooth and hard, of sizes that are no multiples of anything."""
    folder = tmp_path_factory.mktemp("jpegs")
    pictures = [photographs()[0][:150, :211], waves(131, 65), noise(35, 37), waves(7, 9), waves(1, 1)]
    made = [
        encode(picture, subsampling=layout, quality=quality)
        for picture in pictures
        for layout in SUBSAMPLINGS
        for quality in (30, 95)
    ]
    made += [encode_440(pictures[0]), encode(pictures[0], "L"), encode(pictures[0], subsampling="4:4:4", keep_rgb=True)]
    made += [encode(pictures[0], optimize=True, restart_marker_blocks=5), encode(pictures[1], restart_marker_rows=1)]
    damaged = bytearray(made[0])
    for place in np.random.default_rng(0).integers(700, len(damaged), 5):
        damaged[place] ^= 0x15
    files = []
    for number, content in enumerate([*made, bytes(damaged), made[0][:2500]]):
        files.append(folder / f"{number}.jpg")
        files[-1].write_bytes(content)
    return files


def built(compiler, program, *options):
    helper = ROOT / "tests" / "helpers" / "crop_checksums.c"
    strict = ["-std=c11", "-O3", "-ffp-contract=off", "-Wall", "-Wextra", "-Wshadow", "-Werror"]
    command = [compiler, *strict, *options, f"-I{NATIVE}", str(helper), *SOURCES, "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Compiled for this machine."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    return built("gcc", tmp_path_factory.mktemp("here") / "crop_checksums")


@pytest.fixture(scope="module")
def expected(program, jpegs):
    """What this machine's processor decodes, one number at a time."""
    sums = subprocess.check_output([program, "0", *jpegs], text=True).split()
    assert len(set(sums)) == len(jpegs)
    assert all(line.endswith(":60") for line in sums[:-2])  # the last are damaged and cut short
    return sums


@pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX2 is x86's")
def test_the_checksums_with_and_without_avx2_are_equal(program, expected, jpegs):
    assert subprocess.check_output([program, "1", *jpegs], text=True).split() == expected


@pytest.fixture(scope="module")
def arm_program(tmp_path_factory):
    """Compiled for aarch64."""
    for program in (COMPILER, EMULATOR):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: gcc-aarch64-linux-gnu, qemu-user-static)")
    if not Path("/usr/include/simde").is_dir():
        pytest.skip("SIMDe is not installed (Debian: libsimde-dev)")
    # The cross compiler does not look where this machine's headers are, and should see no other of them.
    folder = tmp_path_factory.mktemp("aarch64")
    (folder / "simde").symlink_to("/usr/include/simde")
    return built(COMPILER, folder / "crop_checksums", "-static", f"-isystem{folder}")


@pytest.mark.slow
@pytest.mark.parametrize("simd", ["0", "1"], ids=["scalar", "neon"])
def test_aarch64_decodes_the_same_pixels(simd, arm_program, expected, jpegs):
    assert subprocess.check_output([EMULATOR, arm_program, simd, *jpegs], text=True).split() == expected
