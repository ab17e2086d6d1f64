"""Images per second of write_datasets.py's writer beside stock FFCV's DatasetWriter.

    python benchmarks/writer.py --images FOLDER [--workers 2] [--runs 5] [--repeat 10] [--markdown FILE]

FOLDER holds one folder per class. Both write its images at 500 px, quality 90, all as JPEG, with the same number of
workers; every run is a process of its own, the contenders in turn. The first run of each is not counted. Ours estimates
the space that is needed, writes the entry-point index, the manifest and the checksum as well, and reads the file again.
Before each run its input is read once, so that every writer finds its images in the page cache.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

RESOLUTION, QUALITY = 500, 90


def copy_images(folder: Path, root: Path, repeat: int) -> int:
    """Make ``root/train`` of ``repeat`` copies of each image; returns their number.

    Copies, because links would let the folder's writer read fewer bytes than an archive's.
    """
    count = 0
    for image in sorted(folder.glob("*/*")):
        for number in range(repeat):
            copy = root / "train" / image.parent.name / f"{number}_{image.name}"
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image, copy)
            count += 1
    return count


def pack_images(root: Path) -> None:
    """Make ``root.tar`` and ``root.zip`` of the images in ``root/train``, nothing compressed."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    with (
        tarfile.open(root.with_suffix(".tar"), "w") as tar,
        zipfile.ZipFile(root.with_suffix(".zip"), "w", strict_timestamps=False) as archive,
    ):
        for file in files:
            tar.add(file, str(file.relative_to(root)))
            archive.write(file, file.relative_to(root))


def read_all(root: Path, contender: str) -> None:
    """Read a contender's input, so that it is in the page cache."""
    archive = {"ours, from a tar": ".tar", "ours, from a ZIP": ".zip"}.get(contender)
    for path in [root.with_suffix(archive)] if archive else root.glob("train/*/*"):
        with path.open("rb") as file:
            while file.read(1 << 20):
                pass


def write_ours(root: Path, target: Path, workers: int, reencode: bool = True) -> None:
    from ffcv_imagenet.data.sources.find import find_sources
    from ffcv_imagenet.data.write.parameters import resolve_parameters
    from ffcv_imagenet.data.write.splits import write_sources

    parameters = resolve_parameters(mode="jpg", max_resolution=RESOLUTION, jpeg_quality=QUALITY, reencode=reencode)
    write_sources(find_sources(root, ("train",)), target, parameters, workers)


def write_ours_from_tar(root: Path, target: Path, workers: int) -> None:
    write_ours(root.with_suffix(".tar"), target, workers)


def write_ours_from_zip(root: Path, target: Path, workers: int) -> None:
    write_ours(root.with_suffix(".zip"), target, workers)


def write_ffcv(root: Path, target: Path, workers: int) -> None:
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter
    from torchvision.datasets import ImageFolder

    image = RGBImageField(write_mode="jpg", max_resolution=RESOLUTION, jpeg_quality=QUALITY)
    writer = DatasetWriter(str(target / "train.beton"), {"image": image, "label": IntField()}, num_workers=workers)
    writer.from_indexed_dataset(ImageFolder(str(root / "train")), chunksize=100)


def write_ours_keeping(root: Path, target: Path, workers: int) -> None:
    write_ours(root, target, workers, reencode=False)


CONTENDERS = {
    "ours": write_ours,
    "ours, from a tar": write_ours_from_tar,
    "ours, from a ZIP": write_ours_from_zip,
    "ours, --write.reencode=0": write_ours_keeping,
    "stock FFCV": write_ffcv,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=10, help="copies of each image, so that a run is long enough")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--target", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:  # a run of its own, timed from the inside: without interpreter start and imports
        import ffcv.writer  # noqa: F401
        import torchvision  # noqa: F401

        import ffcv_imagenet.data.sources.find
        import ffcv_imagenet.data.write.splits  # noqa: F401

        start = time.perf_counter()
        CONTENDERS[arguments.contender](arguments.images, arguments.target, arguments.workers)
        print("seconds", time.perf_counter() - start)
        return

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "images"
        count = copy_images(arguments.images, root, arguments.repeat)
        pack_images(root)
        rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        for run in range(arguments.runs + 1):
            for name in CONTENDERS:
                target = Path(scratch) / "out"
                target.mkdir()
                read_all(root, name)
                command = [sys.executable, __file__, f"--images={root}", f"--workers={arguments.workers}"]
                command += [f"--contender={name}", f"--target={target}"]
                answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                seconds = float(answer.split("seconds")[-1])
                shutil.rmtree(target)
                if run:
                    rates[name].append(count / seconds)
                    print(f"run {run}: {name:24} {rates[name][-1]:7.1f} images/s", file=sys.stderr)

    medians = {name: statistics.median(runs) for name, runs in rates.items()}
    lines = [
        f"{datetime.date.today()}, {processor()}, {len(os.sched_getaffinity(0))} cores; {count} images, "
        f"{RESOLUTION} px, quality {QUALITY}, {arguments.workers} workers; "
        f"median (min to max) of {arguments.runs} runs.",
        "",
        "| writer | images/s | x stock FFCV |",
        "|---|---|---|",
        *(
            f"| {name} | {medians[name]:.0f} ({min(runs):.0f} to {max(runs):.0f}) "
            f"| {medians[name] / medians['stock FFCV']:.2f} |"
            for name, runs in rates.items()
        ),
    ]
    print("\n".join(lines))
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines) + "\n")


def processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].split(":", 1)[1].strip() if names else platform.processor()


if __name__ == "__main__":
    main()
