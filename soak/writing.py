"""Damaged images, and a writer that is killed at any moment: what is written is whole and right, or not there.

    python soak/writing.py [--files 1000] [--kills 100] [--seed 0]

Every image file is damaged in its own way (cut, bits, bytes, blocks of zeros, emptied, replaced by something else).
The writer must keep exactly those that Pillow reads, with Pillow's pixels, leave out and list the others, and, told to
fail, name the first of them. And the writer, in a process of its own, is killed (SIGKILL) at random moments; after
each kill the file is either not there or has its checksum. The next run left alone makes the same bytes as ever.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ffcv_imagenet.data.format.beton import read_samples
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.sources.folder import scan_splits
from ffcv_imagenet.data.write.parameters import resolve_parameters
from ffcv_imagenet.data.write.splits import write_splits

PAGE_MIB = 2
FORMATS = ("JPEG", "JPEG", "JPEG", "PNG", "WEBP", "BMP")


@dataclass
class Outcome:
    """What was seen: damaged files kept and left out, kills and what they left, and failures."""

    kept: int = 0
    left_out: int = 0
    kills: int = 0
    files_left: int = 0
    failures: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.kept + self.left_out} bad files: {self.left_out} left out and listed, {self.kept} still readable "
            f"and stored as Pillow reads them; {self.kills} kills: {self.files_left} with a whole file, "
            f"{self.kills - self.files_left} with none; failures: {len(self.failures)}"
        )


def run(files: int, kills: int, seed: int, folder: Path) -> Outcome:
    """Damage ``files`` images and kill ``kills`` writers, in ``folder``."""
    outcome = Outcome()
    killed_writers(kills, seed, folder / "killed", outcome)  # first, while this process has no threads to fork
    damaged_images(files, seed, folder / "damaged", outcome)
    return outcome


def damaged_images(count: int, seed: int, folder: Path, outcome: Outcome) -> None:
    """Write ``count`` damaged images and compare with what Pillow makes of each."""
    rng = np.random.default_rng(seed)
    expected: dict[str, np.ndarray | None] = {}
    for number in range(count):
        name = f"{number % 3}/{number:05}.jpg"
        path = folder / "images" / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_damage(_image(FORMATS[number % len(FORMATS)], rng), rng))
        expected[name] = _pillow(path)
    with contextlib.redirect_stdout(io.StringIO()):
        beton = _write(folder / "images", folder / "out", on_error="skip")
    manifest = Manifest.read(beton)
    manifest.verify(beton)
    names = scan_splits(folder / "images", ["train"])["train"].files
    unreadable = [name for name in names if expected[name] is None]
    if list(manifest.skipped) != unreadable:
        outcome.failures += (f"left out: {set(manifest.skipped) ^ set(unreadable)}",)
    samples, content = read_samples(beton), beton.read_bytes()
    for number, name in enumerate(name for name in names if name not in manifest.skipped):
        start, size = int(samples.pointer[number]), int(samples.size[number])
        pixels = expected[name]
        if pixels is None or content[start : start + size] != pixels.tobytes():
            outcome.failures += (f"{name}: other pixels",)
        outcome.kept += 1
    outcome.left_out = len(manifest.skipped)
    if unreadable:
        try:
            _write(folder / "images", folder / "none", on_error="fail")
            outcome.failures += ("not stopped by a bad file",)
        except ValueError as error:
            if unreadable[0] not in str(error):
                outcome.failures += (f"{unreadable[0]} is not named: {error}",)
        if any((folder / "none").iterdir()):
            outcome.failures += ("something is left after a failure",)


def killed_writers(count: int, seed: int, folder: Path, outcome: Outcome) -> None:
    """Kill ``count`` writers of one file; they are forked, so that none has to import anything."""
    rng, chance = np.random.default_rng(seed), random.Random(seed)
    for number in range(60):
        path = folder / "images" / "train" / str(number % 3) / f"{number:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_image("JPEG", rng, side=400))
    start = time.monotonic()
    whole = _write_in_child(folder, "whole", patience=None)
    duration = time.monotonic() - start
    assert whole is not None
    reference = whole.read_bytes()
    for _ in range(count):
        beton = _write_in_child(folder, "out", patience=chance.uniform(0, 1.1 * duration))
        outcome.kills += 1
        if beton is None:
            continue
        outcome.files_left += 1
        try:
            Manifest.read(beton).verify(beton)
        except (OSError, ValueError) as error:
            outcome.failures += (f"after a kill: {error}",)
        shutil.rmtree(folder / "out")
    beton = _write_in_child(folder, "out", patience=None)
    if beton is None or beton.read_bytes() != reference:
        outcome.failures += ("after the kills: another file",)


def _write_in_child(folder: Path, name: str, patience: float | None) -> Path | None:
    """Write in a forked process, killed after ``patience`` seconds; returns the file if there is one."""
    child = os.fork()
    if child == 0:
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        try:
            _write(folder / "images", folder / name, on_error="fail")
        finally:
            os._exit(0)
    if patience is not None:
        time.sleep(patience)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    beton = folder / name / "train.beton"
    return beton if beton.exists() else None


def _write(images: Path, out: Path, on_error: str) -> Path:
    with contextlib.redirect_stderr(io.StringIO()):  # the progress bar
        parameters = resolve_parameters(mode="raw", page_size_mib=PAGE_MIB)
        write_splits(images, out, ["train"], parameters, num_workers=2, on_error=on_error)
    return out / "train.beton"


def _image(kind: str, rng: np.random.Generator, side: int = 48) -> bytes:
    height, width = rng.integers(side // 2, side, 2)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    file = io.BytesIO()
    coarse.resize((int(width), int(height)), Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


def _damage(content: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(content)
    match rng.integers(7):
        case 0:
            del data[rng.integers(len(data)) :]
        case 1:
            for place in rng.integers(len(data), size=rng.integers(1, 4)):
                data[place] ^= 1 << rng.integers(8)
        case 2:
            for place in rng.integers(len(data), size=rng.integers(1, 20)):
                data[place] = rng.integers(256)
        case 3:
            start = rng.integers(len(data))
            data[start : start + 64] = bytes(len(data[start : start + 64]))
        case 4:
            start = rng.integers(len(data))
            del data[start : start + rng.integers(1, 50)]
        case 5:
            data[rng.integers(64) :] = rng.bytes(200)
        case 6:
            data = bytearray([b"", b"<html>404</html>", b"\xff\xd8", b"\x89PNG\r\n\x1a\n"][rng.integers(4)])
    return bytes(data)


def _pillow(path: Path) -> np.ndarray | None:
    """What torchvision's ImageFolder would load; None where it fails, or where that does not fit into a page."""
    try:
        image = np.asarray(Image.open(path).convert("RGB"))
    except Exception:
        return None
    return image if image.nbytes <= PAGE_MIB << 20 else None


def main() -> None:
    """Run it in full and print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(arguments.files, arguments.kills, arguments.seed, Path(folder))
    print(f"writing: {outcome}")
    for failure in outcome.failures:
        print(f"  {failure}", file=sys.stderr)
    sys.exit(bool(outcome.failures))


if __name__ == "__main__":
    main()
