"""Random damage in the tables of a .beton file: reading it is an error or gives the right pixels, nothing else.

    python soak/mutations.py [--mutations 5000] [--seed 0]

Each mutation changes header, field descriptors, metadata or allocation table of a small file (bits, bytes, extreme
numbers, exchanged numbers and records) or truncates it. Then the file is opened and decoded, in a child process, with
its bytes between two pages of memory that must not be touched. Three kinds take turns:

    kept       the manifest is the right one: an error, or all pixels and labels are right
    forged     the manifest is made to match the damaged tables: an error or pixels, as no checksum can help
    none       there is no manifest, as with files of stock FFCV: an error or pixels

A child that dies, needs more than a minute, or raises something else than ValueError is a failure of the mutation that
it was at.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import mmap
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

KINDS = ("kept", "forged", "none")
ALLOWED = {"kept": {"error", "right"}, "forged": {"error", "right", "pixels"}, "none": {"error", "right", "pixels"}}

#: Seconds for one mutation, and for the start of a child, which may have to compile.
PATIENCE, START_PATIENCE = 60, 600

_READY = "ready"
_NUM_SAMPLES, _NUM_CLASSES = 24, 3
_PAGE_SIZE = 2 << 20


@dataclasses.dataclass
class Outcome:
    """How often which result was seen, and which mutations failed."""

    counts: Counter[str]
    failures: list[str]

    def __str__(self) -> str:
        seen = ", ".join(f"{count} x {result}" for result, count in sorted(self.counts.items()))
        return f"{sum(self.counts.values())} mutations: {seen}; failures: {len(self.failures)}"


def run(mutations: int, seed: int, folder: Path) -> Outcome:
    """Try ``mutations`` mutations in child processes, with files in ``folder``."""
    outcome, first = Outcome(Counter(), []), 0
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    while first < mutations:
        command = [sys.executable, __file__, "--child", folder, "--seed", seed, "--mutations", mutations]
        command += ["--first", first]
        child = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, text=True, env=environment)
        ready, *lines = child.stdout.splitlines() or [""]
        if ready != _READY:
            raise RuntimeError(f"the child cannot read the undamaged file, status {child.returncode}")
        for number, line in enumerate(lines, first):
            kind, result = line.split("\t")
            allowed = result in ALLOWED[kind]
            outcome.counts[f"{kind}: {result if allowed else 'failure'}"] += 1
            if not allowed:
                outcome.failures.append(f"mutation {number} ({kind}): {result}")
        first += len(lines)
        if first < mutations:
            outcome.counts["failure"] += 1
            outcome.failures.append(f"mutation {first}: the child ended with status {child.returncode}")
            first += 1
    return outcome


def _child(folder: Path, seed: int, first: int, mutations: int) -> None:
    """Try the mutations from ``first`` on, a line of output each; SIGALRM ends a child that hangs."""
    signal.alarm(START_PATIENCE)
    reader = _Reader(folder)
    print(_READY, flush=True)
    for number in range(first, mutations):
        generator = np.random.default_rng([seed, number])
        kind = KINDS[number % len(KINDS)]
        content = _mutate(reader.content, generator)
        signal.alarm(PATIENCE)
        print(kind, reader.read(content, kind), sep="\t", flush=True)


class _Reader:
    """Writes the good file, remembers its pixels and labels, and reads damaged ones."""

    def __init__(self, folder: Path):
        from ffcv_imagenet.data.format.manifest import Manifest

        self._beton = folder / "damaged.beton"
        write_small(self._beton)
        self.content = np.fromfile(self._beton, np.uint8)
        self._manifest = Manifest.read(self._beton)
        self._right = self._decoded(self._manifest)

    def read(self, content: np.ndarray, kind: str) -> str:
        """``error``, ``right``, ``pixels`` (other ones), or what should not have happened."""
        content.tofile(self._beton)
        try:
            if kind == "kept":
                self._manifest.write(self._beton)
                manifest = type(self._manifest).read(self._beton)
            else:
                manifest = _forge(self._manifest, content) if kind == "forged" else None
            pixels, labels = self._decoded(manifest)
        except ValueError:
            return "error"
        except Exception as error:
            return f"{type(error).__name__}: {error}".replace("\n", " ").replace("\t", " ")
        same = np.array_equal(labels, self._right[1]) and np.array_equal(pixels, self._right[0])
        return "right" if same else "pixels"

    def _decoded(self, manifest: object) -> tuple[np.ndarray, np.ndarray]:
        from ffcv_imagenet.data.format.beton import read_samples
        from ffcv_imagenet.data.verify import decode_whole

        samples = read_samples(self._beton, manifest)
        pixels = []
        with _Fenced(np.fromfile(self._beton, np.uint8)) as content:
            for _, batch, codes in decode_whole(samples, content, resolution=32):
                if codes.any():
                    raise ValueError("a sample is damaged")
                pixels.append(batch.copy())
        return np.concatenate(pixels), samples.label.copy()


class _Fenced:
    """A copy of some bytes that ends where a page without access begins; before it there is another one."""

    def __init__(self, content: np.ndarray):
        page = mmap.PAGESIZE
        inner = -(-content.size // page) * page
        self._memory = mmap.mmap(-1, inner + 2 * page)
        self._libc = ctypes.CDLL(None, use_errno=True)
        whole = np.frombuffer(self._memory, np.uint8)
        self._address, self._fences = whole.ctypes.data, (0, page + inner)
        self._content = whole[page + inner - content.size : page + inner]
        self._content[:] = content
        self._protect(mmap.PROT_READ * 0)

    def __enter__(self) -> np.ndarray:
        return self._content

    def __exit__(self, *_: object) -> None:
        self._protect(mmap.PROT_READ | mmap.PROT_WRITE)

    def _protect(self, access: int) -> None:
        for fence in self._fences:
            address = ctypes.c_void_p(self._address + fence)
            if self._libc.mprotect(address, ctypes.c_size_t(mmap.PAGESIZE), access) != 0:
                raise OSError(ctypes.get_errno(), "mprotect failed")


def write_small(beton: Path) -> int:
    """Write a small file of JPEG and raw images of several sizes, and its manifest; returns the number of images."""
    from ffcv_imagenet import native
    from ffcv_imagenet.data.format import manifest as manifests
    from ffcv_imagenet.data.format.manifest import MAX_PIXELS, Manifest, WriteParameters
    from ffcv_imagenet.data.write.encode import EncodedImage
    from ffcv_imagenet.data.write.pages import BetonWriter
    from ffcv_imagenet.files import exclusive_file

    generator = np.random.default_rng(0)
    labels = generator.integers(0, _NUM_CLASSES, _NUM_SAMPLES).tolist()
    with exclusive_file(beton) as file:
        writer = BetonWriter(file, len(labels), _PAGE_SIZE)
        for number, label in enumerate(labels):
            height, width = generator.integers(24, 90, 2).tolist()
            if number % 3:  # two of three
                noise = generator.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
                image = noise.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
                data, is_jpeg = native.write_jpeg(image, 90)[0], True
            else:
                # Raw ones are large, so that there are several pages.
                height, width = 16 * height, 4 * width
                data, is_jpeg = generator.bytes(height * width * 3), False
            writer.append(EncodedImage(is_jpeg, height, width, data), label)
        checksums = writer.finish()
    Manifest(
        format_version=manifests.FORMAT_VERSION,
        split="train",
        classes=tuple("abc"),
        images_per_class=tuple(np.bincount(labels, minlength=_NUM_CLASSES).tolist()),
        num_samples=len(labels),
        parameters=WriteParameters(
            "proportion", None, None, 0.5, None, 90, True, -1, False, 0, _PAGE_SIZE >> 20, MAX_PIXELS
        ),
        source_folder="",
        source_digest="",
        skipped={},
        versions={},
        num_bytes=beton.stat().st_size,
        checksum=checksums.file,
        tables_checksum=checksums.tables,
        created="",
    ).write(beton)
    return len(labels)


def _mutate(good: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A damaged copy of a file's bytes: one to three changes in one of its tables, or an end that is missing."""
    from ffcv.types import ALLOC_TABLE_TYPE, FieldDescType, HeaderType

    content = good.copy()
    if generator.random() < 0.1:
        return content[: generator.integers(content.size)]
    samples = _NUM_SAMPLES
    record = 24  # bytes of a sample in the metadata, and in the allocation table
    fields = HeaderType.itemsize
    metadata = fields + 2 * FieldDescType.itemsize
    table = content.size - samples * ALLOC_TABLE_TYPE.itemsize
    # Start and end of a table, size of its records, and where in them which number lies.
    header = (0, fields, fields, ((0, 2), (2, 2), (4, 4), (8, 8), (16, 8)))
    descriptors = (fields, metadata, FieldDescType.itemsize, ((0, 1), (1, 8), (17, 8)))
    of_sample = (metadata, metadata + samples * record, record, ((0, 1), (1, 2), (3, 2), (5, 8), (16, 8)))
    allocation = (table, content.size, record, ((0, 8), (8, 8), (16, 8)))
    tables = (header, descriptors, of_sample, allocation)
    start, end, size, numbers = tables[generator.choice(4, p=(0.2, 0.15, 0.4, 0.25))]
    for _ in range(generator.integers(1, 4)):
        place, other = (start + size * generator.integers((end - start) // size, size=2)).tolist()
        offset, width = numbers[generator.integers(len(numbers))]
        one = slice(place + offset, place + offset + width)
        match generator.choice(["bits", "bytes", "extreme", "near", "exchange", "records", "neighbours"]):
            case "bits":
                bit = int(generator.integers(8 * start, 8 * end))
                content[bit // 8] ^= 1 << bit % 8
            case "bytes":
                content[one] = generator.integers(0, 256, width)
            case "extreme":
                content[one] = generator.choice([0, 1, 0x7F, 0x80, 0xFF])
            case "near":  # a little more or less
                number = int.from_bytes(content[one].tobytes(), "little") + int(generator.integers(-16, 17))
                content[one] = np.frombuffer((number % (1 << 8 * width)).to_bytes(width, "little"), np.uint8)
            case "exchange":  # a number with that of another record
                two = slice(other + offset, other + offset + width)
                content[one], content[two] = content[two].copy(), content[one].copy()
            case "records":
                one, two = slice(place, place + size), slice(other, other + size)
                content[one], content[two] = content[two].copy(), content[one].copy()
            case "neighbours":  # two numbers of a record
                (a, n), (b, m) = (numbers[i] for i in generator.integers(len(numbers), size=2))
                first, second = content[place + a : place + a + min(n, m)], content[place + b : place + b + min(n, m)]
                first[:], second[:] = second.copy(), first.copy()
    return content


def _forge(manifest: object, content: np.ndarray) -> object:
    """The manifest that the damaged tables would have."""
    from ffcv.types import ALLOC_TABLE_TYPE, FieldDescType, HeaderType

    from ffcv_imagenet.data.format.beton import tables_checksum

    data, fields = content.tobytes(), HeaderType.itemsize + 2 * FieldDescType.itemsize
    header = np.frombuffer(data.ljust(HeaderType.itemsize, b"\0"), HeaderType, 1)[0]
    samples, table = min(int(header["num_samples"]), len(data)), min(int(header["alloc_table_ptr"]), len(data))
    metadata = data[fields : fields + 24 * samples]
    labels = np.frombuffer(metadata[: len(metadata) // 24 * 24], "<i8").reshape(-1, 3)[:, 2]
    return dataclasses.replace(
        manifest,
        num_samples=samples,
        images_per_class=tuple(np.bincount(labels[(labels >= 0) & (labels < 3)], minlength=3).tolist()),
        tables_checksum=tables_checksum(
            data[:fields], metadata, data[table : table + ALLOC_TABLE_TYPE.itemsize * samples]
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _child(arguments.child, arguments.seed, arguments.first, arguments.mutations)
        return
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(arguments.mutations, arguments.seed, Path(folder))
    print(f"reading: {outcome}")
    for failure in outcome.failures:
        print(failure, file=sys.stderr)
    sys.exit(bool(outcome.failures))


if __name__ == "__main__":
    main()
