"""The same images in every form in which people have data sets give the same .beton files, byte for byte.

    python soak/formats.py [FOLDER]     # an image folder with train/ and val/; drawn images where none is given

Files of the folder are JPEGs, called otherwise in each class. CIFAR is compared with its pixels as PNG files.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/helpers"))
import containers
from images import draw

from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.sources.find import find_sources
from ffcv_imagenet.data.write.parameters import resolve_parameters
from ffcv_imagenet.data.write.splits import write_sources

BOTH = containers.BOTH
PARAMETERS = resolve_parameters(mode="jpg", max_resolution=500)


def draw_images(root: Path) -> None:
    """1,000 images of ten classes."""
    for split, count in (("train", 80), ("val", 20)):
        for label in range(10):
            for number in range(count):
                file = root / split / f"n{label:08}" / f"{split}_{label}_{number:04}.JPEG"
                file.parent.mkdir(parents=True, exist_ok=True)
                side = 40 + number
                Image.fromarray(draw(side, side + label, number)).save(file, quality=90)


def arrange(images: Path, root: Path, *, val_name: str, class_name: str = "{name}") -> Path:
    """Links to the images under names that a form needs: of the class's ``name`` and number, and of a file's."""
    for split in BOTH:
        number = 0
        for label, name in enumerate(containers.classes_of(images)):
            target = root / split / class_name.format(name=name, label=label + 1)
            target.mkdir(parents=True)
            for file in sorted((images / split / name).iterdir()):
                number += 1
                made = f"{target.name}_{number:07}.JPEG" if split == "train" else val_name.format(number=number)
                os.link(file, target / made)
    return root


def checksums(root: Path, out: Path, format: str) -> dict[str, str]:
    """Write ``root`` and return the checksums of the files."""
    sources = find_sources(root, BOTH, format)
    write_sources(sources, out, PARAMETERS, num_workers=0, on_error="fail", overwrite=True)
    return {split: Manifest.read(out / f"{split}.beton").checksum for split in BOTH}


def csv(folder: Path, images: Path) -> Path:
    """A table of paths and labels for each split."""
    folder.mkdir()
    for split in BOTH:
        rows = [f"{file},{file.parent.name}" for file in containers.files_of(images / split)]
        (folder / f"{split}.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    return folder


def forms(images: Path) -> dict[str, Callable[[Path], Path]]:
    """By the name of a form: what makes it in a new folder."""
    official = containers.make_imagenet

    def made(function: Callable, *arguments: object) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            folder.mkdir()
            return function(folder, images, *arguments) or folder

        return make

    maps = dict.fromkeys(BOTH, "{split}/{name}/{file}")
    return {
        "folder": lambda folder: images,
        "tar": lambda folder: containers.make_tar(folder.with_suffix(".tar"), images),
        "tar (gzip)": lambda folder: containers.make_tar(folder.with_suffix(".tar.gz"), images, mode="w:gz"),
        "zip": lambda folder: containers.make_zip(folder.with_suffix(".zip"), images),
        "zip with maps": made(containers.make_mapped, maps, maps),
        "imagenet": made(official),
        "kaggle": made(containers.make_kaggle),
        "webdataset": lambda folder: containers.make_shards(folder, images, "folder"),
        "parquet": lambda folder: containers.make_parquet(folder, images),
        "csv": lambda folder: csv(folder, images),
        "cars": lambda folder: containers.make_cars(folder, images),
    }


def compare_cifar(work: Path) -> str:
    """1,000 images of 32 pixels in all of CIFAR's forms and as PNG files; returns what was found."""
    rng, names = np.random.default_rng(0), ("airplane", "automobile", "bird")
    files = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    batches = {name: (rng.integers(0, 256, (167, 3, 32, 32), np.uint8), rng.integers(0, 3, 167)) for name in files}
    for split in BOTH:
        chosen = [file for file in files if (file == "test_batch") == (split == "val")]
        pixels, labels = (np.concatenate([batches[file][part] for file in chosen]) for part in (0, 1))
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            folder = work / "png" / split / names[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number:05}.png")
    expected = checksums(work / "png", work / "out", "folder")
    for version in ("cifar-10-batches-py", "cifar-10-batches-bin"):
        root = containers.make_cifar(work / "cifar", batches, version, names)
        if checksums(root, work / "out", "cifar") != expected:
            return f"cifar ({version}): other bytes"
    return "cifar: the same as PNG files"


def main() -> None:
    """Compare all forms; ends with status 1 where one gives other bytes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path)
    given = parser.parse_args().folder
    with tempfile.TemporaryDirectory(prefix="formats_", dir=given.resolve().parent if given else None) as name:
        work = Path(name)
        if given is None:
            draw_images(work / "given")
        val_name = "ILSVRC2012_val_{number:08}.JPEG"
        images = arrange((given or work / "given").resolve(), work / "images", val_name=val_name)
        numbered = arrange(images, work / "numbered", val_name=val_name, class_name="{label:03}.{name}")
        results, expected = [], None
        makers = forms(images) | {"cub": lambda folder: containers.make_cub(folder, numbered)}
        for number, (form, make) in enumerate(makers.items()):
            format = form.split()[0]
            found = checksums(make(work / f"form{number}"), work / "out", format)
            expected = expected or found
            results.append(f"{form}: {'the same' if found == expected else 'other bytes'}")
            shutil.rmtree(work / "out")
        results.append(compare_cifar(work))
        count = sum(Manifest.read(work / "out" / f"{split}.beton").num_samples for split in BOTH)
    print("\n".join(results), f"({len(results)} forms; of CIFAR's {count} images)", sep="\n")
    if any("other" in result for result in results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
