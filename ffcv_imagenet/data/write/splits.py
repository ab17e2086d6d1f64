"""Write images, wherever they lie, as .beton files that FFCV reads.

Worker threads read and encode the images (:mod:`encode`); the main thread packs them into pages in the order of the
samples (:class:`BetonWriter`). So the file is the same, byte for byte, for any number of workers.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import datetime
import io
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np

import ffcv_imagenet
from ffcv_imagenet.data.format import manifest as manifests
from ffcv_imagenet.data.format.index import EntryIndex, IndexWriter
from ffcv_imagenet.data.format.manifest import Manifest, WriteParameters
from ffcv_imagenet.data.sources.folder import scan_splits
from ffcv_imagenet.data.sources.source import Source
from ffcv_imagenet.data.write.encode import EncodedImage, encode_samples
from ffcv_imagenet.data.write.index import write_index
from ffcv_imagenet.data.write.pages import BetonWriter, beton_size
from ffcv_imagenet.data.write.parameters import sample_order, storage_modes
from ffcv_imagenet.data.write.subsets import draw
from ffcv_imagenet.files import atomic_file, exclusive_file, partial_of
from ffcv_imagenet.names import shown
from ffcv_imagenet.progress import Progress

#: A name without the bytes that are not UTF-8, which Python keeps as surrogates.
_TEXT = re.compile("[^\udc80-\udcff]+")

#: A split to write: its name, its images, how, where, and which file is there (:func:`_identity`).
_Split = tuple[str, Source, WriteParameters, Path, tuple[int, ...] | None]

#: Images from which the size of the file is estimated.
SPACE_SAMPLE = 64


def write_splits(
    root: Path,
    out: Path,
    splits: Sequence[str],
    parameters: WriteParameters,
    num_workers: int = 0,
    overwrite: bool = False,
    on_error: str = "fail",
) -> None:
    """Write the image folders ``root/<split>``; see :func:`write_sources`."""
    write_sources(scan_splits(root, splits), out, parameters, num_workers, overwrite, on_error)


def write_sources(
    sources: Mapping[str, Source],
    out: Path,
    parameters: WriteParameters,
    num_workers: int = 0,
    overwrite: bool = False,
    on_error: str = "fail",
) -> None:
    """Write each split to ``out/<split>.beton`` and its manifest, and print a line for it.

    All splits are checked before the first is written. A finished file with the same parameters and source is
    left as it is, unless ``overwrite`` is set.

    Args:
        sources: the images of each split (``train``, ``val``).
        out: folder for the files; it is made if missing.
        parameters: how the images are chosen and stored.
        num_workers: encoding threads, 0 for one per usable core.
        overwrite: replace files that are already there.
        on_error: what to do with a file that cannot be read, decoded or stored: ``fail``, or ``skip`` it and list it.

    Raises:
        FileExistsError: another file has the name of an output, or another process is writing it.
        ValueError: a file cannot be decoded or stored, the source is damaged, or the parameters make no sense.
        OSError: the output cannot be written, or will not fit on the disk.
    """
    todo: list[_Split] = []
    for split, whole in sources.items():
        # Validation stays as it is: it measures all classes alike.
        of_split = parameters if split == "train" else dataclasses.replace(parameters, imbalance=None)
        source = draw(whole, of_split)
        if parameters.subset > len(source.files):
            raise ValueError(
                f"write.subset: got {parameters.subset}, but {shown(source.place)} has {len(source.files)} images"
            )
        if source.damage and on_error == "fail":
            raise ValueError("; ".join(f"{shown(what)}: {reason}" for what, reason in source.damage.items()))
        beton = out / f"{split}.beton"
        there = _identity(beton)
        if source.repeated:
            _warn(split, "folders are left out, because they are read under another name", source.repeated)
        if not overwrite and _is_finished(beton, source, of_split, on_error):
            if not EntryIndex.path(beton).is_file():
                write_index(beton, num_workers)
            print(f"{split}: {shown(beton)} is there already, with these options: nothing to do")
        else:
            todo.append((split, source, of_split, beton, there))
    out.mkdir(parents=True, exist_ok=True)
    workers = num_workers or len(os.sched_getaffinity(0))
    _check_free_space(out, todo, workers)
    for split, source, of_split, beton, there in todo:
        start = time.monotonic()
        manifest = write_split(split, source, beton, of_split, workers, on_error, there)
        seconds = time.monotonic() - start
        print(
            f"{split}: {manifest.num_samples} images, {manifest.num_classes} classes, {_readable(manifest.num_bytes)}, "
            f"{seconds:.1f} s, {manifest.num_samples / seconds:.0f} images/s, {shown(beton)}"
        )
        if manifest.skipped:
            listed = shown(skipped_list(beton))
            print(f"{split}: {len(manifest.skipped)} files left out, listed with the reasons in {listed}")
        if empty := manifest.empty_classes:
            _warn(split, "classes have no image left", empty)


def write_split(
    split: str,
    source: Source,
    beton: Path,
    parameters: WriteParameters,
    num_workers: int,
    on_error: str = "fail",
    there: tuple[int, ...] | None = None,
) -> Manifest:
    """Write one split; ``beton`` appears under its name only when whole. Raises as write_sources.

    It replaces the file ``there`` (:func:`_identity`) and no other: not one that another process has finished since.
    """
    order = sample_order(len(source.files), parameters)
    modes = storage_modes(len(order), parameters)
    labels: list[int] = []
    skipped: dict[str, str] = dict(source.damage)
    partial = _partial(beton)
    with exclusive_file(partial) as file, atomic_file(EntryIndex.path(beton)) as index_file:
        if _identity(beton) != there:
            raise FileExistsError(f"another process has just written {shown(beton)}")
        writer = BetonWriter(file, len(order), parameters.page_size_mib << 20)
        index = IndexWriter(index_file, len(order))
        images = encode_samples(source.read, order.tolist(), modes, parameters, num_workers)
        with contextlib.closing(images), Progress(f"writing {split}", len(order), "images") as progress:
            for number, image in zip(order, images, strict=True):
                if isinstance(image, EncodedImage):
                    labels.append(int(source.labels[number]))
                    writer.append(image, labels[-1])
                    index.append(image.entries)
                elif on_error == "skip":
                    skipped[source.files[number]] = str(image)
                else:
                    raise ValueError(f"cannot store {shown(source.where(number))}: {image}")
                progress.update()
        if not labels:
            raise ValueError(
                f"none of the {len(order)} files can be stored; {shown(source.where(order[0]))}: "
                f"{skipped[source.files[order[0]]]}"
            )
        checksums = writer.finish()
        index.finish(checksums.file)
        manifest = Manifest(
            format_version=manifests.FORMAT_VERSION,
            split=split,
            classes=source.classes,
            images_per_class=tuple(np.bincount(labels, minlength=len(source.classes)).tolist()),
            num_samples=len(labels),
            parameters=parameters,
            source_folder=source.name,
            source_digest=source.digest,
            skipped=skipped,
            versions=_versions(),
            num_bytes=partial.stat().st_size,
            checksum=checksums.file,
            tables_checksum=checksums.tables,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            source_format=source.format,
            class_names=source.class_names,
        )
        with ThreadPoolExecutor(1) as thread:
            stored = thread.submit(file.sync)
            try:
                manifest.verify(partial)  # meanwhile: the processor would wait for the disk
            finally:
                stored.result()
        with contextlib.ExitStack() as beside:
            contents = {Manifest.path(beton): manifest.encoded()}
            if skipped:
                contents[skipped_list(beton)] = _encoded_list(skipped)
            files = [index_file]
            for path, content in contents.items():
                files.append(beside.enter_context(atomic_file(path)))
                files[-1].write(content)
            for each in files:  # If the disk is full, that shows here, where the old files are still there.
                each.sync()
            # The old .beton is there until the new one takes its name; wherever the process is stopped, there is one,
            # whole, and never with another file's manifest, index or list: without them, at worst.
            for old in (Manifest.path(beton), EntryIndex.path(beton), skipped_list(beton)):
                old.unlink(missing_ok=True)
            partial.replace(beton)
    return manifest


def _partial(beton: Path) -> Path:
    """Where a .beton is written before it is whole."""
    return beton.with_name(beton.name + ".partial")


def skipped_list(beton: Path) -> Path:
    """Where the files that were left out are listed (CSV: file, reason), if any were."""
    return beton.with_name(beton.name + ".skipped.csv")


def _encoded_list(skipped: Mapping[str, str]) -> bytes:
    text = io.StringIO()
    # A name on disk is any bytes: those that are not UTF-8 go into the list as they are.
    rows = [(_TEXT.sub(lambda part: shown(part[0]), file), reason) for file, reason in skipped.items()]
    csv.writer(text).writerows([("file", "reason"), *rows])
    return text.getvalue().encode(errors="surrogateescape")


def _is_finished(beton: Path, source: Source, parameters: WriteParameters, on_error: str) -> bool:
    """Whether ``beton`` is what would be written; raises FileExistsError when it is something else."""
    if not beton.exists():
        return False
    try:
        manifest = Manifest.read(beton)
    except (FileNotFoundError, ValueError) as error:
        difference = str(error)
    else:
        there, wanted = dataclasses.asdict(manifest.parameters), dataclasses.asdict(parameters)
        differences = [f"{key} is {there[key]}, not {wanted[key]}" for key in wanted if there[key] != wanted[key]]
        if manifest.source_digest != source.digest:
            differences.append(f"its images are not those of {shown(source.place)}")
        if manifest.skipped and on_error == "fail":
            differences.append(f"it leaves out {len(manifest.skipped)} files, allowed with --write.on_error=skip")
        if not differences:
            return True
        difference = ", ".join(differences)
    raise FileExistsError(
        f"{shown(beton)} is there already ({difference}): give another --out.dir, or replace it by --write.overwrite=1"
    )


def _check_free_space(out: Path, todo: Sequence[_Split], num_workers: int) -> None:
    """Raise OSError if the disk has less free space than a sample of the images predicts."""
    # What killed processes left is written over.
    left = [path for *_, beton, _ in todo for path in (_partial(beton), partial_of(EntryIndex.path(beton)))]
    free = shutil.disk_usage(out).free + sum(path.stat().st_blocks * 512 for path in left if path.exists())
    if sum(_most_bytes(source, parameters) for _, source, parameters, *_ in todo) <= free:
        return
    needed = sum(_expected_bytes(source, parameters, num_workers) for _, source, parameters, *_ in todo)
    if needed > free:
        raise OSError(
            f"not enough space in {shown(out)}: about {_readable(needed)} are needed (from a sample of the images), "
            f"{_readable(free)} are free"
        )


def _most_bytes(source: Source, parameters: WriteParameters) -> float:
    """What a split takes on the disk at most, if every image has as many pixels as it may."""
    if parameters.max_resolution is None or not parameters.reencode:
        return math.inf
    num_samples, pixels = len(sample_order(len(source.files), parameters)), (parameters.max_resolution + 16) ** 2
    # Raw pixels are 3 bytes each, JPEGs with their headers fewer; the index is a small part of a byte for each.
    in_beton = beton_size(num_samples, 3 * pixels + 4096, parameters.page_size_mib << 20)
    return in_beton + num_samples * pixels + 4096


def _expected_bytes(source: Source, parameters: WriteParameters, num_workers: int) -> int:
    order = sample_order(len(source.files), parameters)
    modes = storage_modes(len(order), parameters)
    drawn = np.linspace(0, len(order) - 1, min(len(order), SPACE_SAMPLE)).astype(int)
    drawn_modes = [modes[number] for number in drawn]
    encoded = encode_samples(source.read, order[drawn].tolist(), drawn_modes, parameters, num_workers)
    images = [image for image in encoded if isinstance(image, EncodedImage)]
    if not images:
        return 0
    in_beton = float(np.mean([len(image.data) for image in images]))
    in_index = float(np.mean([8 + len(image.entries) for image in images]))
    return beton_size(len(order), in_beton, parameters.page_size_mib << 20) + int(in_index * len(order))


def _identity(beton: Path) -> tuple[int, ...] | None:
    """What distinguishes a file from one that replaces it later; None without a file."""
    try:
        status = beton.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _warn(split: str, what: str, names: Sequence[str]) -> None:
    listed = ", ".join(shown(name) for name in names[:5]) + (", ..." if len(names) > 5 else "")
    print(f"warning: {split}: {len(names)} {what}: {listed}", file=sys.stderr)


def _versions() -> dict[str, str]:
    installed = {package: version(package) for package in ("ffcv", "numpy", "pillow")}
    return {"ffcv_imagenet": ffcv_imagenet.__version__, "opencv": cv2.__version__, **installed}


def _readable(num_bytes: int) -> str:
    size = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:.4g} TB"
