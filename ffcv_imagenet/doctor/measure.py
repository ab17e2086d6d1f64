"""What each part of a training reaches alone: reading, decoding, copying, the step, averaging gradients.

Everything is measured with the training's own parts, for a second or two each.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import re
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing

from ffcv_imagenet import native
from ffcv_imagenet.data.read.beton_file import BetonFile
from ffcv_imagenet.data.read.loader import SLOTS, Batch, BatchLoader
from ffcv_imagenet.train.evaluation import evaluate
from ffcv_imagenet.train.out_of_memory import free_memory, is_out_of_memory, largest_fitting
from ffcv_imagenet.train.trainer import Trainer

#: Seconds that a part is measured for.
SECONDS = 1.5
#: Images that are read at once in a random order, and bytes in pieces, as the loaders ask for them.
_READ_TOGETHER, _PIECE = 64, 8 << 20
#: Bytes between two looks at the clock, and how many times its seconds a slow disk gets.
_BLOCK, _PATIENCE = 256 << 10, 6
#: Images that are in memory when decoding is measured, at most.
_MOST_SAMPLES = 2048
#: Steps on a GPU before the clock starts.
_WARM_UP = 3
#: Images of the first step on a CPU, and of the one that is timed: so many more that their memory differs enough to
#: count on, and no more than tell something.
_FEW_ON_CPU, _LEAST_ON_CPU, _MOST_ON_CPU = 2, 8, 64
_PAGE, _LARGEST_FOLIO = os.sysconf("SC_PAGE_SIZE"), 2 << 20
#: Up to this share of what is read may have been in memory for the reading to count as cold.
_FEW = 0.05
_libc = ctypes.CDLL(None)


@dataclass(frozen=True)
class Reading:
    """Bytes and images per second from the disk, of one process. ``cold`` tells whether the bytes were in no memory of
    this machine before (None: the system does not say)."""

    random_images: float
    random_bytes: float
    piece_images: float
    piece_bytes: float
    cold: bool | None


@dataclass(frozen=True)
class Step:
    """Training steps of one size: images/s (None: not even the smallest batch fits), and bytes at the peak.

    ``images`` are those of the steps that were timed. ``memory`` is that of the whole micro-batch, counted up from
    smaller ones on a CPU; None where it does not fit. ``fitting`` is the largest batch that does, None: none.
    """

    rate: float | None
    images: int
    memory: int | None
    fitting: int | None


class DeviceBatches:
    """Random batches that lie on the device: a loader that takes no time."""

    cpu_share = 1.0

    def __init__(self, batch_size: int, batches: int, classes: int, device: torch.device, dtype: torch.dtype):
        self.batch_size, self.batches, self.classes = batch_size, batches, classes
        self.device, self.dtype = device, dtype
        self._made: tuple[int, Batch] | None = None

    @property
    def num_samples(self) -> int:
        """Images of all batches."""
        return self.batch_size * self.batches

    def __len__(self) -> int:
        return self.batches

    def epoch(self, epoch: int, resolution: int, first_batch: int = 0) -> Generator[Batch, None, None]:
        """The same batch again and again."""
        if self._made is None or self._made[0] != resolution:
            shape, labels = (self.batch_size, resolution, resolution, 3), (self.batch_size,)
            images = torch.randint(256, shape, dtype=torch.uint8, device=self.device).permute(0, 3, 1, 2)
            if self.dtype != torch.uint8:
                images = (images.float() / 128 - 1).to(self.dtype)
            self._made = resolution, Batch(images, torch.randint(self.classes, labels, device=self.device), replaced=0)
        for _ in range(first_batch, self.batches):
            yield self._made[1]


def measure_reading(file: BetonFile, seconds: float = SECONDS) -> Reading:
    """Read a file from the disk as a training does: images in random order, and pieces of 8 MiB in random order.

    What is read is driven out of the page cache before, which the system allows for files that nobody has changed.
    """
    samples, content = file.samples, file.storage.content
    generator = np.random.default_rng(0)
    order = generator.permutation(len(samples.size))
    pieces = generator.permutation(max(1, len(content) // _PIECE)).astype(np.uint64) * np.uint64(_PIECE)
    lengths = np.minimum(np.uint64(_PIECE), np.uint64(len(content)) - pieces)
    mean = float(samples.size.mean())
    with file.path.open("rb", buffering=0) as opened:
        parts = [order[i : i + _READ_TOGETHER] for i in range(0, len(order), _READ_TOGETHER)]
        image_bytes, image_cold = _read(
            opened.fileno(), content, [(samples.pointer[p], samples.size[p]) for p in parts], seconds
        )
        piece_bytes, _ = _read(
            opened.fileno(), content, [(pieces[i : i + 1], lengths[i : i + 1]) for i in range(len(pieces))], seconds
        )
    return Reading(image_bytes / mean, image_bytes, piece_bytes / mean, piece_bytes, image_cold)


def _read(
    file: int, content: np.ndarray, parts: Sequence[tuple[np.ndarray, np.ndarray]], seconds: float
) -> tuple[float, bool | None]:
    """Bytes/s of reading parts of a mapped file, starts and sizes, all of a part at once; and whether it was cold.

    Ends after a part, since the system reads all of it together; in the middle of one only on a very slow disk.
    """
    taken, total, resident, named = 0.0, 0, 0, 0
    for starts, sizes in parts:
        if taken > seconds:
            break
        for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
            _drive_out(file, content, start, start + size)
            resident += _resident(content, start, start + size)
            named += size
        begin = time.perf_counter()
        native.will_need(content, starts, sizes)
        for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
            for at in range(start, start + size, _BLOCK):
                total += len(os.pread(file, min(_BLOCK, start + size - at), at))
                if taken + time.perf_counter() - begin > _PATIENCE * seconds:
                    return total / (taken + time.perf_counter() - begin), _was_cold(file, resident, named)
        taken += time.perf_counter() - begin
    return total / taken, _was_cold(file, resident, named)


def _was_cold(file: int, resident: int, named: int) -> bool | None:
    """Whether of so many bytes that were read no more than a few were in memory; None: the system does not tell."""
    if os.fstat(file).st_uid != os.geteuid() and not os.access(f"/proc/self/fd/{file}", os.W_OK):
        return None  # mincore(2) calls everything resident then
    return resident <= _FEW * named


def _drive_out(file: int, content: np.ndarray, start: int, end: int) -> None:
    """Let the system forget these bytes of a file, as far as it can."""
    # What is named in part is kept: a page, or many of them where the system keeps several as one.
    for unit in (_PAGE, _LARGEST_FOLIO):
        first = start // unit * unit
        os.posix_fadvise(file, first, -(-end // unit) * unit - first, os.POSIX_FADV_DONTNEED)
        if not _resident(content, start, end):
            return


def _resident(content: np.ndarray, start: int, end: int) -> int:
    """How many of these bytes of a mapped file are in memory, in whole pages."""
    first = start // _PAGE * _PAGE
    pages = np.empty(-(-(end - first) // _PAGE), np.uint8)
    address, length = content.ctypes.data + first, end - first
    if _libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(length), ctypes.c_void_p(pages.ctypes.data)) != 0:
        return 0
    return int((pages & 1).sum()) * _PAGE


def samples_in_memory(file: BetonFile, seconds: float = SECONDS) -> np.ndarray:
    """Indices of random samples, [N] int64, whose bytes have just been read: as many as fit into the time."""
    samples = file.samples
    chosen = np.random.default_rng(1).permutation(len(samples.size))[:_MOST_SAMPLES]
    begin, read = time.perf_counter(), 0
    with file.path.open("rb", buffering=0) as opened:
        for start, size in zip(samples.pointer[chosen].tolist(), samples.size[chosen].tolist(), strict=True):
            os.pread(opened.fileno(), size, start)
            read += 1
            if read >= _READ_TOGETHER and time.perf_counter() - begin > seconds:
                break
    return np.ascontiguousarray(chosen[:read])


def repeated(samples: np.ndarray, batch_size: int) -> np.ndarray:
    """The samples again and again: more than can be decoded while they are measured."""
    return np.resize(samples, batch_size * 4000)


def measure_loader(loader: BatchLoader, side: int, device: torch.device, seconds: float = SECONDS) -> float:
    """Images/s of a loader, on ``device``; its first batches, with what is compiled and started, don't count."""
    batches = loader.epoch(0, side)
    with contextlib.closing(batches):
        for _ in range(2):
            next(batches)
        _finish(device)
        begin, images = time.perf_counter(), 0
        for batch in batches:
            images += len(batch.labels)
            if time.perf_counter() - begin > seconds and images >= 2 * loader.batch_size:
                break
        _finish(device)
        return images / (time.perf_counter() - begin)


def measure_copying(device: torch.device, size: int = 64 << 20, times: int = 8) -> float:
    """Bytes/s from pinned memory of the host to a GPU."""
    source = torch.zeros(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    target = torch.empty_like(source, device=device)

    def copy() -> None:
        for _ in range(times):
            target.copy_(source, non_blocking=True)

    copy()
    return size * times / _seconds(device, copy)


def measure_step(
    trainer: Trainer,
    side: int,
    sizes: Sequence[int],
    batches: Callable[[int, int], DeviceBatches],
    *,
    available: int,
    seconds: float = SECONDS,
) -> Step:
    """Time whole steps, with the optimizer, on images that lie on the device.

    Args:
        trainer: without accumulation.
        side: of the images in pixels.
        sizes: of the micro-batch, and of the smaller ones that accumulation can make of it.
        batches: makes so many batches of so many images.
        available: bytes that this process may have on its device.
        seconds: about how long.
    """
    trainer.options = dataclasses.replace(trainer.options, resolution=lambda epoch: side)
    device = trainer.world.device

    def run(images: int, steps: int) -> float:
        trainer.train_on(batches(images, steps))  # type: ignore[arg-type]
        return _seconds(device, lambda: trainer.train_epoch(0))

    if device.type == "cuda":
        trainer.train_on(batches(sizes[-1], 1))  # type: ignore[arg-type]
        return _step_on_gpu(trainer, side, sizes, run, seconds)
    return _step_on_cpu(sizes, run, SLOTS * 3 * side**2, available, seconds)


def _step_on_gpu(
    trainer: Trainer, side: int, sizes: Sequence[int], run: Callable[[int, int], float], seconds: float
) -> Step:
    """Whole micro-batches; where they don't fit, the largest that does."""
    fitting = largest_fitting(lambda images: trainer.attempt(images, side), sizes)
    if fitting is None:
        return Step(None, 0, None, None)
    device = trainer.world.device
    torch.cuda.reset_peak_memory_stats(device)
    run(fitting, _WARM_UP)  # compiles where that is asked for, and chooses convolutions
    once = run(fitting, 1)
    steps = max(3, min(50, round(seconds / once)))
    rate = fitting * steps / run(fitting, steps)
    memory = torch.cuda.max_memory_allocated(device) if fitting == sizes[0] else None
    return Step(rate, fitting, memory, fitting)


def _step_on_cpu(
    sizes: Sequence[int], run: Callable[[int, int], float], ring: int, available: int, seconds: float
) -> Step:
    """A few images at a time; the memory of a whole micro-batch is counted up from two sizes.

    ``ring`` are the bytes of an image in the loader's batches.
    """
    whole = sizes[0]
    few = min(_FEW_ON_CPU, whole)
    try:
        run(few, 1)
        with _PeakMemory() as peak_of_few:
            once = run(few, 1)
        many = min(whole, max(_LEAST_ON_CPU, min(_MOST_ON_CPU, int(few * seconds / once))))
        with _PeakMemory() as peak_of_many:
            rate = many / run(many, 1)
        if many / rate < seconds / 2:
            steps = min(20, int(seconds / (many / rate)))
            rate = many * steps / run(many, steps)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return Step(None, 0, None, None)
    per_image = max(0.0, (peak_of_many.bytes - peak_of_few.bytes) / (many - few)) if many > few else 0.0

    def needed(images: int) -> int:
        return int(peak_of_many.bytes + per_image * (images - many) + ring * images)

    fitting = next((images for images in sizes if needed(images) <= available), None)
    return Step(rate, many, needed(whole), fitting)


def measure_evaluation(trainer: Trainer, batches: DeviceBatches, seconds: float = SECONDS) -> float | None:
    """Images/s of an evaluation without its decoding; None where its batch does not fit into memory."""
    options, device = trainer.options, trainer.world.device

    def run(count: int) -> float:
        batches.batches = count
        return _seconds(
            device,
            lambda: evaluate(
                trainer.evaluated_step,
                batches,  # type: ignore[arg-type]
                resolution=options.val_resolution,
                flip_tta=options.flip_tta,
                top_k=options.top_k,
                forward=trainer.evaluated_forward,
            ),
        )

    fits = True
    try:
        once = run(1)
        if device.type == "cuda":
            once = run(1)
        count = max(1, min(20, int(seconds / once)))
        taken = run(count)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        fits = False
    if not fits:
        free_memory()
        return None
    return batches.batch_size * count / taken


def measure_all_reduce(processes: int, num_bytes: int, device: str, times: int = 10) -> float:
    """Seconds that so many processes of this machine take to average float32 gradients of so many bytes.

    Raises:
        RuntimeError: they can't reach each other.
    """
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(
            _all_reduce, args=(processes, num_bytes // 4, device, folder, times), nprocs=processes
        )
        return float((Path(folder) / "seconds").read_text())


def _all_reduce(rank: int, processes: int, numbers: int, device: str, folder: str, times: int) -> None:
    """One of the processes; rank 0 writes the seconds."""
    here = torch.device(device, rank) if device == "cuda" else torch.device(device)
    options: dict[str, Any] = {}
    if device == "cuda":
        torch.cuda.set_device(here)
        options["device_id"] = here
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=processes,
        **options,
    )
    gradients = torch.ones(numbers, device=here)

    def reduce() -> None:
        for _ in range(times):
            dist.all_reduce(gradients)

    reduce()
    taken = _seconds(here, reduce) / times
    if rank == 0:
        (Path(folder) / "seconds").write_text(str(taken))
    dist.barrier()
    dist.destroy_process_group()


class _PeakMemory:
    """The most bytes that this process holds during a ``with`` block; 0 where the system does not tell."""

    bytes = 0

    def __enter__(self) -> _PeakMemory:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # begin anew
        return self

    def __exit__(self, *_: object) -> None:
        # Of its own: what it has mapped of files can be read again.
        self.bytes = max(0, held_bytes("VmHWM") - held_bytes("RssFile"))


def held_bytes(kind: str = "RssAnon") -> int:
    """Bytes that this process has in memory, as ``/proc/self/status`` names them; 0 where it does not tell."""
    found = re.search(rf"{kind}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def _seconds(device: torch.device, run: Callable[[], object]) -> float:
    """What a call takes; on a GPU by events before and after its work."""
    if device.type != "cuda":
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin
    torch.cuda.synchronize(device)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    stream = torch.cuda.current_stream(device)
    start.record(stream)
    run()
    end.record(stream)
    end.synchronize()
    return start.elapsed_time(end) / 1000


def _finish(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
