"""The images of a .beton file as files again.

    python -m ffcv_imagenet.data.extract FILE.beton OUT

JPEGs come out byte for byte as they are stored, raw pixels as PNG: ``OUT/<class>/<number of the sample>.jpg``.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from ffcv_imagenet.data.format.beton import read_samples
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.names import shown
from ffcv_imagenet.progress import Progress
from ffcv_imagenet.script import OneLineParser, run_script


def extract(beton: Path, out: Path) -> int:
    """Write every image to ``out/<class>/NNNNNNNN.jpg`` (or ``.png``); returns their number.

    Classes of a file without manifest are called ``class_0`` and so on. After an error, nothing of them is left.

    Raises:
        FileNotFoundError: no such .beton file.
        FileExistsError: there is something in ``out`` already.
        OSError: a file cannot be written; names it.
        ValueError: a damaged file, or a class whose name cannot be that of a folder.
    """
    manifest = Manifest.read(beton) if Manifest.path(beton).is_file() else None
    samples = read_samples(beton, manifest)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{shown(out)} is not empty: give another folder")
    labels = samples.label.tolist()
    names = {label: manifest.classes[label] if manifest else f"class_{label}" for label in set(labels)}
    for name in names.values():
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise ValueError(f"a class of {shown(beton)} is called {name!r}, which is no name of a folder")
    content = np.memmap(beton, np.uint8, mode="r")

    def write(number: int) -> None:
        start, size = int(samples.pointer[number]), int(samples.size[number])
        data = content[start : start + size]
        file = out / names[labels[number]] / f"{number:08}"
        if samples.is_jpeg[number]:
            _write(file.with_name(f"{file.name}.jpg"), data.data)
        else:
            pixels, png = data.reshape(int(samples.height[number]), int(samples.width[number]), 3), io.BytesIO()
            Image.fromarray(np.ascontiguousarray(pixels)).save(png, "png")
            _write(file.with_name(f"{file.name}.png"), png.getbuffer())

    with _removed_on_failure(out, set(names.values())), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        try:
            with Progress(beton.name, len(labels), "images") as progress:
                for first in range(0, len(labels), 4096):  # a pool would hold all results that nobody has taken yet
                    for _ in pool.map(write, range(first, min(first + 4096, len(labels)))):
                        progress.update()
        except BaseException:  # Ctrl-C too
            pool.shutdown(cancel_futures=True)
            raise
    return len(labels)


@contextlib.contextmanager
def _removed_on_failure(out: Path, folders: Collection[str]) -> Iterator[None]:
    """Make the folders in ``out``, and remove them, with all that is in them, after an exception."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        for name in folders:
            (out / name).mkdir(parents=True)
        yield
    except BaseException:  # Ctrl-C too
        for name in folders:
            shutil.rmtree(out / name, ignore_errors=True)
        with contextlib.suppress(OSError):  # The first error counts.
            for folder in made:
                folder.rmdir()
        raise


def _write(file: Path, data: memoryview) -> None:
    """Write a file, or name it."""
    try:
        file.write_bytes(data)
    except OSError as error:
        raise OSError(f"cannot write {shown(file)}: {error.strerror}") from error


def main(argv: Sequence[str]) -> None:
    """``python -m ffcv_imagenet.data.extract FILE.beton OUT``."""
    parser = OneLineParser(
        prog="python -m ffcv_imagenet.data.extract",
        description="Write the images of a .beton file as OUT/<class>/<number>.jpg, raw pixels as .png.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.beton")
    parser.add_argument("out", type=Path, metavar="OUT")
    arguments = parser.parse_args(argv)
    count = extract(arguments.file, arguments.out)
    print(f"{shown(arguments.out)}: {count} images")


if __name__ == "__main__":
    run_script(main)
