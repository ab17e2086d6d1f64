"""Write image folders as .beton files that FFCV reads.

The way of an image: worker threads read and encode it (:mod:`encode`), the main thread packs it into pages in the
order of the samples (:class:`BetonWriter`). So the file is the same, byte for byte, for any number of workers.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import datetime
import fcntl
import io
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.types import (
    ALLOC_TABLE_TYPE,
    CURRENT_VERSION,
    TYPE_ID_HANDLER,
    FieldDescType,
    HeaderType,
    get_metadata_type,
)
from tqdm import tqdm

import ffcv_imagenet
from ffcv_imagenet.atomic import atomic_file, write_atomically
from ffcv_imagenet.data import manifest as manifests
from ffcv_imagenet.data.beton import JPEG_MODE, RAW_MODE, tables_checksum
from ffcv_imagenet.data.encode import EncodedImage, encode_files
from ffcv_imagenet.data.index import EntryIndex, IndexWriter, write_index
from ffcv_imagenet.data.manifest import Manifest, WriteParameters
from ffcv_imagenet.data.sources import ImageFolder, scan_splits

#: The data sets of libffcv/ffcv-imagenet's published results.
PRESETS: dict[str, dict[str, Any]] = {
    "rn50": {"mode": "proportion", "max_resolution": 500, "compress_probability": 0.5, "jpeg_quality": 90},
    "rn18": {"mode": "proportion", "max_resolution": 400, "compress_probability": 0.1, "jpeg_quality": 90},
}

#: What applies to which modes, and what stands in where neither the user nor a preset says.
_MODE_OPTIONS = {
    "compress_probability": (("proportion",), 0.5),
    "smart_threshold": (("smart",), 2.0),
    "jpeg_quality": (("jpg", "smart", "proportion"), 90),
}

#: Images from which the size of the file is estimated.
SPACE_SAMPLE = 64

_FIELDS = {"image": RGBImageField(), "label": IntField()}


def resolve_parameters(
    *,
    preset: str | None = None,
    mode: str | None = None,
    max_resolution: int | None = None,
    compress_probability: float | None = None,
    smart_threshold: float | None = None,
    jpeg_quality: int | None = None,
    reencode: bool = True,
    subset: int = -1,
    shuffle: bool = False,
    seed: int = 0,
    page_size_mib: int = 8,
) -> WriteParameters:
    """Fill in a preset and the defaults; None means "not given", and what is given goes before the preset.

    Raises:
        ValueError: an option that does not apply to the mode, or a value that is not allowed.
    """
    given: dict[str, Any] = {
        "mode": mode,
        "max_resolution": max_resolution,
        "compress_probability": compress_probability,
        "smart_threshold": smart_threshold,
        "jpeg_quality": jpeg_quality,
    }
    of_preset = PRESETS[preset] if preset else {}
    values: dict[str, Any] = {key: of_preset.get(key) if value is None else value for key, value in given.items()}
    values["mode"] = values["mode"] or "jpg"
    for key, (modes, default) in _MODE_OPTIONS.items():
        if values["mode"] in modes:
            values[key] = default if values[key] is None else values[key]
        elif given[key] is not None:
            raise ValueError(
                f"write.{key}: got {given[key]}, but it applies only to write.mode {' | '.join(modes)} "
                f"(the mode is {values['mode']})"
            )
        else:
            values[key] = None
    if subset == 0:
        raise ValueError("write.subset: got 0, allowed is a number of images >= 1, or -1 for all")
    if page_size_mib & (page_size_mib - 1):
        raise ValueError(f"write.page_size_mib: got {page_size_mib}, allowed is a power of 2")
    if not reencode and values["mode"] not in ("jpg", "proportion"):
        raise ValueError(
            f"write.reencode: got 0, but it applies only to write.mode jpg | proportion, not {values['mode']}"
        )
    return WriteParameters(
        reencode=reencode, subset=subset, shuffle=shuffle, seed=seed, page_size_mib=page_size_mib, **values
    )


def write_splits(
    root: Path,
    out: Path,
    splits: Sequence[str],
    parameters: WriteParameters,
    num_workers: int = 0,
    overwrite: bool = False,
    on_error: str = "fail",
) -> None:
    """Write ``root/<split>`` to ``out/<split>.beton`` and its manifest, and print a line for each split.

    All splits are checked before the first is written. A finished file with the same parameters and source is
    left as it is, unless ``overwrite`` is set.

    Args:
        root: image folder, see :func:`sources.scan_splits`.
        out: folder for the files; it is made where missing.
        splits: ``train``, ``val`` or both.
        parameters: how the images are chosen and stored.
        num_workers: encoding threads, 0 for one per usable core.
        overwrite: replace files that are already there.
        on_error: what to do with a file that cannot be read, decoded or stored: ``fail``, or ``skip`` it and list it.

    Raises:
        FileNotFoundError: ``root`` or a split is not there.
        FileExistsError: another file has the name of an output, or another process is writing it.
        ValueError: a file cannot be decoded or stored, or the folder or the parameters make no sense.
        OSError: the output cannot be written, or will not fit on the disk.
    """
    folders = scan_splits(root, splits)
    todo = []
    for split, folder in folders.items():
        if parameters.subset > len(folder.files):
            raise ValueError(
                f"write.subset: got {parameters.subset}, but {folder.folder} has {len(folder.files)} images"
            )
        beton = out / f"{split}.beton"
        if not overwrite and _is_finished(beton, folder, parameters, on_error):
            if not EntryIndex.path(beton).is_file():
                write_index(beton, num_workers)
            print(f"{split}: {beton} is there already, with these options: nothing to do")
        else:
            todo.append((split, folder, beton))
    out.mkdir(parents=True, exist_ok=True)
    workers = num_workers or len(os.sched_getaffinity(0))
    _check_free_space(out, [folder for _, folder, _ in todo], parameters, workers)
    for split, folder, beton in todo:
        start = time.monotonic()
        manifest = write_split(split, folder, beton, parameters, workers, on_error)
        seconds = time.monotonic() - start
        print(
            f"{split}: {manifest.num_samples} images, {manifest.num_classes} classes, "
            f"{_readable(manifest.num_bytes)}, {seconds:.1f} s, {manifest.num_samples / seconds:.0f} images/s, {beton}"
        )
        if manifest.skipped:
            print(f"{split}: {len(manifest.skipped)} files left out, listed with the reasons in {skipped_list(beton)}")


def write_split(
    split: str,
    folder: ImageFolder,
    beton: Path,
    parameters: WriteParameters,
    num_workers: int,
    on_error: str = "fail",
) -> Manifest:
    """Write one split; replaces ``beton``, which appears under its name only when whole. Raises as write_splits."""
    order = sample_order(len(folder.files), parameters)
    paths = [str(folder.folder / folder.files[index]) for index in order]
    modes = storage_modes(len(paths), parameters)
    labels: list[int] = []
    skipped: dict[str, str] = {}
    partial = beton.with_name(beton.name + ".partial")
    with _locked(partial) as file, atomic_file(EntryIndex.path(beton)) as index_file:
        try:
            writer = BetonWriter(file, len(paths), parameters.page_size_mib << 20)
            index = IndexWriter(index_file, len(paths))
            images = encode_files(paths, modes, parameters, num_workers)
            with contextlib.closing(images), _progress_bar(split, len(paths)) as bar:
                for source, image in zip(order, images, strict=True):
                    if isinstance(image, EncodedImage):
                        labels.append(int(folder.labels[source]))
                        writer.append(image, labels[-1])
                        index.append(image.entries)
                    elif on_error == "skip":
                        skipped[folder.files[source]] = str(image)
                    else:
                        raise ValueError(f"cannot store {folder.folder / folder.files[source]}: {image}")
                    bar.update()
            if not labels:
                raise ValueError(
                    f"none of the {len(paths)} files can be stored; {paths[0]}: {next(iter(skipped.values()))}"
                )
            checksums = writer.finish()
            index.finish(checksums.file)
            manifest = Manifest(
                format_version=manifests.FORMAT_VERSION,
                split=split,
                classes=folder.classes,
                images_per_class=tuple(np.bincount(labels, minlength=len(folder.classes)).tolist()),
                num_samples=len(labels),
                parameters=parameters,
                source_folder=folder.folder.parent.resolve().name,
                source_digest=folder.digest,
                skipped=skipped,
                versions=_versions(),
                num_bytes=partial.stat().st_size,
                checksum=checksums.file,
                tables_checksum=checksums.tables,
                created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            )
            manifest.verify(partial)
            # In this order a .beton never has a manifest that is not its own, wherever the process is killed. (An
            # index knows its .beton; it gets its name last, when all else is in place.)
            for old in (beton, EntryIndex.path(beton), skipped_list(beton)):
                old.unlink(missing_ok=True)
            manifest.write(beton)
            if skipped:
                _write_skipped_list(beton, skipped)
            partial.replace(beton)
        except BaseException:  # Ctrl-C too
            partial.unlink(missing_ok=True)
            raise
    return manifest


def skipped_list(beton: Path) -> Path:
    """Where the files that were left out are listed (CSV: file, reason), if any were."""
    return beton.with_name(beton.name + ".skipped.csv")


def _write_skipped_list(beton: Path, skipped: dict[str, str]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([("file", "reason"), *skipped.items()])
    # A name on disk is any bytes: those that are no UTF-8 go into the list as they are.
    write_atomically(skipped_list(beton), text.getvalue().encode(errors="surrogateescape"))


class Checksums(NamedTuple):
    """What a manifest keeps of a file: the checksum of all of it, and that of its tables."""

    file: str
    tables: str


class BetonWriter:
    """Pack encoded images and their labels into a .beton file.

    The file is what ffcv.writer.DatasetWriter makes with one worker: a head (header, field descriptors, metadata
    of all samples), pages of sample data from the next multiple of the page size on, and the allocation table.
    No sample crosses a page.
    """

    def __init__(self, file: FileIO, num_samples: int, page_size: int):
        """Begin a file.

        Args:
            file: open for writing, empty, unbuffered.
            num_samples: how often :meth:`append` will be called, at most.
            page_size: in bytes, a power of 2 of at least 2 MiB.
        """
        self._file = file
        self._page = bytearray(page_size)
        self._page_used = 0
        self._num_appended = 0
        self._metadata = np.zeros(num_samples, get_metadata_type(list(_FIELDS.values())))
        self._allocations = np.zeros(num_samples, ALLOC_TABLE_TYPE)
        head_size = HeaderType.itemsize + len(_FIELDS) * FieldDescType.itemsize + self._metadata.nbytes
        self._page_start = -(-head_size // page_size) * page_size  # rounded up
        self._data_start = self._page_start
        self._digests: list[bytes] = []

    def append(self, image: EncodedImage, label: int) -> None:
        """Add the next sample, of at most a page.

        Raises:
            OSError: the file cannot be written.
        """
        size = len(image.data)
        if self._page_used + size > len(self._page):
            self._flush_page()
        pointer = self._page_start + self._page_used
        self._page[self._page_used : self._page_used + size] = image.data
        self._page_used += size
        mode = JPEG_MODE if image.is_jpeg else RAW_MODE
        self._metadata[self._num_appended] = ((mode, image.width, image.height, pointer), label)
        self._allocations[self._num_appended] = (self._num_appended, pointer, size)
        self._num_appended += 1

    def finish(self) -> Checksums:
        """Write what is left, wait until all is on the disk, and return the checksums for the manifest.

        Fewer samples than announced may have come.

        Raises:
            OSError: the file cannot be written.
        """
        self._metadata = self._metadata[: self._num_appended]
        self._allocations = self._allocations[: self._num_appended]
        self._flush_page()
        table = self._allocations.tobytes()
        self._write(self._page_start, table)
        header, metadata = self._header(alloc_table_ptr=self._page_start), self._metadata.tobytes()
        head = (header + metadata).ljust(self._data_start, b"\0")
        self._write(0, head)
        with self._naming_file():
            os.fsync(self._file.fileno())
        digests = manifests.block_digests(head) + self._digests + manifests.block_digests(table)
        return Checksums(manifests.combine_digests(digests), tables_checksum(header, metadata, table))

    def _flush_page(self) -> None:
        self._page[self._page_used :] = bytes(len(self._page) - self._page_used)
        self._write(self._page_start, self._page)
        self._digests += manifests.block_digests(self._page)
        self._page_start += len(self._page)
        self._page_used = 0

    def _header(self, alloc_table_ptr: int) -> bytes:
        header = np.zeros((), HeaderType)
        header["version"] = CURRENT_VERSION
        header["num_fields"] = len(_FIELDS)
        header["page_size"] = len(self._page)
        header["num_samples"] = len(self._metadata)
        header["alloc_table_ptr"] = alloc_table_ptr
        type_ids = {handler: type_id for type_id, handler in TYPE_ID_HANDLER.items()}
        fields = np.zeros(len(_FIELDS), FieldDescType)
        for descriptor, (name, field) in zip(fields, _FIELDS.items(), strict=True):
            descriptor["type_id"] = type_ids[type(field)]
            descriptor["name"][: len(name)] = np.frombuffer(name.encode("ascii"), np.uint8)
            descriptor["arguments"] = field.to_binary()[0]
        return header.tobytes() + fields.tobytes()

    def _write(self, position: int, data: bytes | bytearray) -> None:
        rest = memoryview(data)
        with self._naming_file():
            self._file.seek(position)
            while rest:  # an unbuffered write may take only a part
                rest = rest[self._file.write(rest) :]

    @contextlib.contextmanager
    def _naming_file(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(f"cannot write {self._file.name}: {error.strerror}") from error


def sample_order(num_files: int, parameters: WriteParameters) -> np.ndarray:
    """Indices of the source's files in the order in which they are stored, [number of samples] int64."""
    order = np.arange(num_files)
    if parameters.subset != -1:
        drawn = np.argsort(_random_words(parameters.seed, "subset", num_files), kind="stable")
        order = np.sort(drawn[: parameters.subset])
    if parameters.shuffle:
        order = order[np.argsort(_random_words(parameters.seed, "shuffle", len(order)), kind="stable")]
    return order


def storage_modes(num_samples: int, parameters: WriteParameters) -> list[str]:
    """How each sample is stored: ``jpg``, ``raw`` or ``smart``.

    In mode ``proportion`` it depends on the seed and the sample's index in the file alone.
    """
    if parameters.mode != "proportion":
        return [parameters.mode] * num_samples
    uniform = _random_words(parameters.seed, "compress", num_samples) / 2.0**64
    return ["jpg" if number < parameters.compress_probability else "raw" for number in uniform]


def _random_words(seed: int, purpose: str, count: int) -> np.ndarray:
    """Random numbers, [count] uint64; element i depends on (seed, purpose, i) alone, in every version of numpy."""
    # Generator's methods may change between versions of numpy; SeedSequence and the raw bits do not.
    words = np.random.Philox(np.random.SeedSequence([seed, *purpose.encode()]))
    return words.random_raw(count)


def _is_finished(beton: Path, folder: ImageFolder, parameters: WriteParameters, on_error: str) -> bool:
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
        if manifest.source_digest != folder.digest:
            differences.append(f"its images are not those of {folder.folder}")
        if manifest.skipped and on_error == "fail":
            differences.append(f"it leaves out {len(manifest.skipped)} files, allowed with --write.on_error=skip")
        if not differences:
            return True
        difference = ", ".join(differences)
    raise FileExistsError(
        f"{beton} is there already ({difference}): give another --out.dir, or replace it by --write.overwrite=1"
    )


def _check_free_space(out: Path, folders: Sequence[ImageFolder], parameters: WriteParameters, num_workers: int) -> None:
    """Raise OSError where the disk has not the room that a sample of the images lets expect."""
    needed = sum(_expected_bytes(folder, parameters, num_workers) for folder in folders)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise OSError(
            f"not enough space in {out}: about {_readable(needed)} are needed (from a sample of the images), "
            f"{_readable(free)} are free"
        )


def _expected_bytes(folder: ImageFolder, parameters: WriteParameters, num_workers: int) -> int:
    order = sample_order(len(folder.files), parameters)
    modes = storage_modes(len(order), parameters)
    drawn = np.linspace(0, len(order) - 1, min(len(order), SPACE_SAMPLE)).astype(int)
    paths = [str(folder.folder / folder.files[order[number]]) for number in drawn]
    encoded = encode_files(paths, [modes[number] for number in drawn], parameters, num_workers)
    sizes = [len(image.data) + len(image.entries) for image in encoded if isinstance(image, EncodedImage)]
    return int(np.mean(sizes or [0]) * len(order))


@contextlib.contextmanager
def _locked(partial: Path) -> Iterator[FileIO]:
    """Open an empty file that no other process is writing; a lock ends with its process, however that ends."""
    just_written = FileExistsError(f"another process has just written {partial}")
    partial.touch()
    try:
        file = partial.open("r+b", buffering=0)
    except FileNotFoundError:  # It has got its final name in this moment.
        raise just_written from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(f"another process is writing {partial}") from None
        if not partial.exists() or not os.path.samestat(os.fstat(file.fileno()), partial.stat()):
            raise just_written  # between opening and locking
        file.truncate()  # what a killed run left
        yield file


def _progress_bar(split: str, num_samples: int) -> tqdm:
    # A log file gets a line every half minute, a terminal a line that moves.
    interval = 0.2 if sys.stderr.isatty() else 30
    return tqdm(
        total=num_samples, desc=split, unit=" images", mininterval=interval, maxinterval=interval, dynamic_ncols=True
    )


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
