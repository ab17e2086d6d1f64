"""Make the entry-point index of an existing .beton file."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ffcv_imagenet import native
from ffcv_imagenet.data.format import manifest as manifests
from ffcv_imagenet.data.format.beton import read_samples
from ffcv_imagenet.data.format.index import EVERY, EntryIndex, IndexWriter
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.files import atomic_file
from ffcv_imagenet.progress import Progress


def write_index(beton: Path, num_workers: int = 0, checksum: str | None = None) -> Path:
    """Make the index of an existing .beton file, and show how far it is.

    Args:
        beton: the file.
        num_workers: threads, 0 for one per usable core.
        checksum: of the file; None: the manifest's, or it is computed first.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a .beton file of images, or one with a damaged JPEG; names the sample.
    """
    manifest = Manifest.read(beton) if Manifest.path(beton).is_file() else None
    samples = read_samples(beton, manifest)
    if checksum is None:
        checksum = manifests.file_checksum(beton) if manifest is None else manifest.checksum
    content = np.memmap(beton, np.uint8, mode="r")

    def entries_of(sample: int) -> bytes:
        if not samples.is_jpeg[sample]:
            return b""
        start = int(samples.pointer[sample])
        try:
            return native.build_index(content[start : start + int(samples.size[sample])], EVERY)
        except ValueError as error:
            raise ValueError(f"{beton}: sample {sample} is damaged: {error}") from None

    target = EntryIndex.path(beton)
    threads = num_workers or len(os.sched_getaffinity(0))
    with atomic_file(target) as file, ThreadPoolExecutor(threads) as pool:
        writer = IndexWriter(file, len(samples.pointer))
        with Progress(f"writing {target.name}", len(samples.pointer), "images") as progress:
            # In parts, because a pool would hold all results that are not yet consumed.
            for part in np.array_split(np.arange(len(samples.pointer)), -(-len(samples.pointer) // 4096) or 1):
                for entries in pool.map(entries_of, part.tolist()):
                    writer.append(entries)
                    progress.update()
        writer.finish(checksum)
    return target
