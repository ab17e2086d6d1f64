"""The native decoder builds without warnings and passes its tests with several compilers; a short fuzzing run."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from ffcv_imagenet import native

ROOT = Path(__file__).parents[2]
SOURCES = sorted(str(path) for path in (ROOT / "ffcv_imagenet" / "native").glob("*.c"))


def flags(option):
    return subprocess.run(
        ["pkg-config", option, "libturbojpeg"], capture_output=True, text=True, check=True
    ).stdout.split()


# What is installed is gcc's -O3 as a rule; it passes the same tests as part of the suite.
@pytest.mark.slow
@pytest.mark.parametrize(("compiler", "level"), [("gcc", "-O0"), ("clang", "-O3")])
def test_builds_without_warnings_and_passes(compiler, level, tmp_path):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    library = tmp_path / "library.so"
    options = ["-std=c11", level, "-Wall", "-Wextra", "-Wshadow", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden"]
    include = sysconfig.get_paths()["include"]
    command = [compiler, *options, f"-I{include}", *flags("--cflags"), *SOURCES, "-o", str(library), *flags("--libs")]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    tests = ["tests/native/test_native_decoder.py", "tests/native/test_native_index.py"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *tests],
        cwd=ROOT,
        env={**os.environ, "FIC_LIBRARY": str(library)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:]
    assert "passed" in result.stdout


@pytest.mark.slow
def test_short_fuzzing_finds_nothing(tmp_path):
    result = subprocess.run(
        ["make", "-C", str(ROOT / "fuzz"), "fuzz-short", f"WORK={tmp_path}", "CC=gcc"], capture_output=True, text=True
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    assert result.stdout.count("executions of") == 2


def test_a_library_built_from_another_interface_is_refused(tmp_path):
    changed = tmp_path / "fic.h"
    changed.write_bytes(native.HEADER.read_bytes() + b"int32_t fic_new_function(void);\n")
    with pytest.raises(ImportError, match=r"_native.* was built from another fic.h: build it again"):
        native.check_interface(native._native.interface, changed)
