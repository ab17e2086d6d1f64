"""Builds the native crop decoder; everything else stands in pyproject.toml."""

import subprocess
import zlib
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


def pkg_config(option: str) -> list[str]:
    """What pkg-config says of libjpeg-turbo's TurboJPEG library, without the leading flag of each word."""
    try:
        answer = subprocess.run(["pkg-config", option, "libturbojpeg"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        message = "pkg-config finds no libturbojpeg (Debian: apt-get install pkg-config libturbojpeg0-dev)"
        raise SystemExit(message) from None
    return [word[2:] for word in answer.stdout.split()]


class BuildWithTurboJPEG(build_ext):
    """Looks for libjpeg-turbo when it is needed: what collects or packs files does not need it."""

    def build_extension(self, extension: Extension) -> None:
        """Compile and link with what pkg-config says."""
        extension.include_dirs += pkg_config("--cflags-only-I")
        extension.library_dirs += pkg_config("--libs-only-L")
        extension.libraries += pkg_config("--libs-only-l")
        super().build_extension(extension)


setup(
    cmdclass={"build_ext": BuildWithTurboJPEG},
    ext_modules=[
        Extension(
            "ffcv_imagenet.native._native",
            sources=sorted(str(path) for path in Path("ffcv_imagenet/native").glob("*.c")),
            depends=sorted(str(path) for path in Path("ffcv_imagenet/native").glob("*.h")),
            # So that a library built from another fic.h is told at import, instead of a crash at the first call.
            define_macros=[("FIC_INTERFACE", f'"{zlib.crc32(Path("ffcv_imagenet/native/fic.h").read_bytes()):08x}"')],
            # Contracted to fused operations, sums would be rounded otherwise on some processors.
            extra_compile_args=["-std=c11", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra"],
        )
    ],
)
