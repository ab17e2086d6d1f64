"""Prepares the data of the loader benchmark, once: the same JPEG files for every contender."""

from __future__ import annotations

import dataclasses
import datetime
import io
import os
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from contenders import DataSet
from PIL import Image

from ffcv_imagenet import native
from ffcv_imagenet.data.format.beton import read_samples
from ffcv_imagenet.data.format.index import EVERY, EntryIndex, IndexWriter
from ffcv_imagenet.data.format.manifest import FORMAT_VERSION, Manifest
from ffcv_imagenet.data.sources.folder import scan_splits
from ffcv_imagenet.data.write.encode import EncodedImage
from ffcv_imagenet.data.write.index import write_index
from ffcv_imagenet.data.write.pages import BetonWriter
from ffcv_imagenet.data.write.parameters import resolve_parameters
from ffcv_imagenet.data.write.splits import write_split
from ffcv_imagenet.files import exclusive_file

#: WebDataset's workers take whole shards, so these should be a multiple of their number.
NUM_SHARDS = 16


def prepare(images: Path, workdir: Path, num_samples: int) -> DataSet:
    """Re-encode images to 500 px and quality 90, in every form that a contender reads; does nothing when it is there.

    Args:
        images: image folder, ``<class>/<image>``.
        workdir: where the data lies; about 700 MB for 4,096 images.
        num_samples: images of the data set, drawn from ``images``; each is repeated where there are not enough.
    """
    images = images.resolve()
    source = scan_splits(images.parent, (images.name,))[images.name]
    data = DataSet(workdir / f"{source.digest}-{num_samples}", num_samples)
    try:
        Manifest.read(data.beton)
    except (FileNotFoundError, ValueError):  # nothing there, or of another version of the writer
        shutil.rmtree(data.folder, ignore_errors=True)
        partial = DataSet(data.folder.with_name(f"{data.folder.name}.partial"), num_samples)
        shutil.rmtree(partial.folder, ignore_errors=True)
        drawn = np.resize(np.random.default_rng(0).permutation(len(source.files)), num_samples)
        files, labels = [source.files[number] for number in drawn], source.labels[drawn]
        partial.beton.parent.mkdir(parents=True)
        parameters = resolve_parameters(mode="jpg", max_resolution=500, jpeg_quality=90)
        cores = len(os.sched_getaffinity(0))
        write_split("images", dataclasses.replace(source, files=files, labels=labels), partial.beton, parameters, cores)
        _write_files(partial, [source.classes[label] for label in labels])
        partial.folder.rename(data.folder)
    _write_index(data)
    return data


def write_repeated(jpegs: Sequence[bytes], beton: Path, num_samples: int) -> None:
    """Write a file of ``num_samples`` JPEGs in 1,000 classes, the given ones repeated, with manifest and index."""
    images = []
    for jpeg in jpegs:
        width, height = Image.open(io.BytesIO(jpeg)).size
        images.append(EncodedImage(True, height, width, jpeg, native.build_index(jpeg, EVERY)))
    labels = np.arange(num_samples) % min(1000, num_samples)
    with exclusive_file(beton) as file, EntryIndex.path(beton).open("wb") as index_file:
        writer, index = BetonWriter(file, num_samples, 8 << 20), IndexWriter(index_file, num_samples)
        for number, label in enumerate(labels.tolist()):
            image = images[number % len(images)]
            writer.append(image, label)
            index.append(image.entries)
        checksums = writer.finish()
        index.finish(checksums.file)
    counts = np.bincount(labels)
    Manifest(
        format_version=FORMAT_VERSION,
        split="train",
        classes=tuple(map(str, range(len(counts)))),
        images_per_class=tuple(counts.tolist()),
        num_samples=num_samples,
        parameters=resolve_parameters(),
        source_folder="repeated",
        source_digest="",
        skipped={},
        versions={},
        num_bytes=beton.stat().st_size,
        checksum=checksums.file,
        tables_checksum=checksums.tables,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    ).write(beton)


def jpegs_of(beton: Path) -> list[bytes]:
    """The bytes of all samples of a file of JPEGs."""
    samples = read_samples(beton)
    content = np.memmap(beton, np.uint8, mode="r")
    starts, ends = samples.pointer.tolist(), (samples.pointer + samples.size).tolist()
    return [content[start:end].tobytes() for start, end in zip(starts, ends, strict=True)]


def _write_files(data: DataSet, class_names: list[str]) -> None:
    """Copy the JPEG samples of the .beton into an image folder and into tar files."""
    jpegs = jpegs_of(data.beton)
    (data.folder / "shards").mkdir()
    for shard, numbers in enumerate(np.array_split(np.arange(data.num_samples), NUM_SHARDS)):
        with tarfile.open(data.folder / "shards" / f"{shard:02}.tar", "w") as tar:
            for number in numbers.tolist():
                image = data.images / class_names[number] / f"{number:06}.jpg"
                image.parent.mkdir(parents=True, exist_ok=True)
                image.write_bytes(jpegs[number])
                for name, member in ((f"{number:06}.jpg", jpegs[number]), (f"{number:06}.cls", b"0")):
                    header = tarfile.TarInfo(name)
                    header.size = len(member)
                    tar.addfile(header, io.BytesIO(member))


def _write_index(data: DataSet) -> None:
    """Give the .beton a second name with an index beside it, made anew: it belongs to the program that is measured."""
    shutil.rmtree(data.indexed_beton.parent, ignore_errors=True)
    data.indexed_beton.parent.mkdir()
    data.indexed_beton.hardlink_to(data.beton)
    Manifest.path(data.indexed_beton).hardlink_to(Manifest.path(data.beton))
    write_index(data.indexed_beton)
    EntryIndex.path(data.beton).unlink(missing_ok=True)  # the writer may have made one
