"""The native decoder builds without warnings and passes its tests with several compilers; a short fuzzing run."""

import os
import re
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


#: Prints every figure that scripts/without_root/include/turbojpeg.h states.
FIGURES = """
#include <stddef.h>
#include <stdio.h>
#include <turbojpeg.h>
int main(void)
{
    int figures[] = {TJSAMP_444, TJSAMP_422, TJSAMP_420, TJSAMP_GRAY, TJSAMP_440, TJSAMP_411, TJCS_RGB, TJCS_YCbCr,
                     TJCS_GRAY, TJCS_CMYK, TJCS_YCCK, TJPF_RGB, TJPF_CMYK, TJFLAG_NOREALLOC, TJFLAG_FASTDCT,
                     TJFLAG_ACCURATEDCT, TJXOP_HFLIP, TJXOPT_CROP, sizeof(tjscalingfactor), sizeof(tjtransform),
                     offsetof(tjtransform, r.w), offsetof(tjtransform, op), offsetof(tjtransform, options),
                     offsetof(tjtransform, data), offsetof(tjtransform, customFilter),
                     TJSCALED(17, ((tjscalingfactor){3, 8}))};
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
        printf("%d\\n", figures[i]);
}
"""


def test_the_header_for_machines_without_libjpeg_turbos_says_what_libjpeg_turbos_says(tmp_path):
    (tmp_path / "figures.c").write_text(FIGURES)
    said = {}
    for name, options in (("ours", [f"-I{ROOT / 'scripts/without_root/include'}"]), ("its", flags("--cflags"))):
        subprocess.run(["cc", *options, tmp_path / "figures.c", "-o", tmp_path / name], check=True)
        said[name] = subprocess.check_output([tmp_path / name], text=True)
    assert said["ours"] == said["its"]


def test_the_functions_of_libjpeg_turbo_are_declared_for_machines_without_its_headers_as_it_declares_them(tmp_path):
    ours = (ROOT / "scripts/without_root/include/turbojpeg.h").read_text()
    functions = re.findall(r"\b(tj[A-Z]\w+)\(", ours)
    assert len(functions) > 10
    # Each is called as C++ takes it, which looks up functions by the types of their arguments.
    said = {}
    for name, options in (("ours", [f"-I{ROOT / 'scripts/without_root/include'}"]), ("its", flags("--cflags"))):
        lines = ["#include <turbojpeg.h>", "#include <typeinfo>", "#include <cstdio>", "int main() {"]
        lines += [f"puts(typeid(&{function}).name());" for function in functions]
        (tmp_path / f"{name}.cpp").write_text("\n".join([*lines, "}"]))
        command = ["c++", *options, tmp_path / f"{name}.cpp", "-o", tmp_path / name, "-lturbojpeg"]
        subprocess.run(command, check=True)
        said[name] = dict(zip(functions, subprocess.check_output([tmp_path / name], text=True).split(), strict=True))
    assert said["ours"] == said["its"]


def test_a_library_built_from_another_interface_is_refused(tmp_path):
    changed = tmp_path / "fic.h"
    changed.write_bytes(native.HEADER.read_bytes() + b"int32_t fic_new_function(void);\n")
    with pytest.raises(ImportError, match=r"_native.* was built from another fic.h: build it again"):
        native.check_interface(native._native.interface, changed)
