import contextlib
import ctypes
import gc
import itertools
import mmap
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from digit_loaders import CPU, copies, train_loader, val_loader
from equality import same
from ffcv.loader import Loader as FFCVLoader
from ffcv.transforms import ToTensor
from PIL import Image
from resizing import resized

from ffcv_imagenet.data.format.beton import read_samples
from ffcv_imagenet.data.read.beton_file import BetonFile
from ffcv_imagenet.data.read.decode_cpu import (
    CenterCropDecoder,
    RandomResizedCropDecoder,
    _take_next,
    decode_batch,
)
from ffcv_imagenet.data.read.loader_cpu import CPUBatchLoader, _BatchIterator
from ffcv_imagenet.data.read.orders import QuasiRandomOrder, ShardedOrder, ShuffledOrder
from ffcv_imagenet.data.read.read_ahead import BATCHES_READ_AHEAD, Windows, read_ahead
from ffcv_imagenet.data.write.parameters import resolve_parameters
from ffcv_imagenet.data.write.splits import write_splits
from ffcv_imagenet.imagenet import IMAGENET_CENTER_CROP

#: Where a child process finds this file and the helpers.
TEST_PATHS = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "helpers")]


def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


@pytest.mark.skipif("numba.config.THREADING_LAYER != 'omp'", reason="only OpenMP's threads are lacking after a fork")
def test_a_forked_process_is_refused_where_it_lacks_the_threads(digits):
    if (child := os.fork()) == 0:
        try:
            train_loader(digits)
        except ValueError as error:
            os._exit(42 if "forked" in str(error) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


def test_batches_are_uint8_channels_last_with_int64_labels(digits):
    images, labels = copies(train_loader(digits), 0, 48)[0]
    assert images.shape == (16, 3, 48, 48)
    assert images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.shape == (16,)
    assert labels.dtype == torch.int64


def test_an_epoch_is_a_function_of_seed_and_epoch_not_of_workers_or_history(digits):
    one, two = train_loader(digits, workers=1), train_loader(digits, workers=2)
    third = copies(one, 3, 32)
    assert same(third, copies(two, 3, 32))
    copies(two, 0, 64)
    assert same(third, copies(two, 3, 32))
    assert not same(third, copies(one, 4, 32))
    assert not same(third, copies(train_loader(digits, seed=1), 3, 32))


@pytest.mark.parametrize("quasi_random", [False, True])
def test_an_epoch_that_begins_in_its_middle_is_its_rest_and_changes_no_other(digits, quasi_random):
    loader = train_loader(digits)
    if quasi_random:
        loader.order = QuasiRandomOrder(96, seed=0, global_batch=16, block=8, window=3)
    whole = copies(loader, 2, 32)
    rest = [(batch.images.clone(), batch.labels.clone()) for batch in loader.epoch(2, 32, first_batch=4)]
    assert same(rest, whole[4:])
    assert same(copies(loader, 2, 32), whole)


def test_ranks_share_the_global_batches(digits):
    alone = copies(train_loader(digits, batch=16), 2, 32)
    parts = [copies(train_loader(digits, batch=8, rank=rank, world=2), 2, 32) for rank in range(2)]
    joined = [(torch.cat([a[0], b[0]]), torch.cat([a[1], b[1]])) for a, b in zip(*parts, strict=True)]
    assert same(alone, joined)


def test_without_flip_nothing_is_mirrored_and_with_it_about_half(digits):
    plain = torch.cat([images for images, _ in copies(train_loader(digits, flip=False), 0, 32)])
    mixed = torch.cat([images for images, _ in copies(train_loader(digits, flip=True), 0, 32)])
    mirrored = sum(torch.equal(m, p.flip(2)) and not torch.equal(m, p) for m, p in zip(mixed, plain, strict=True))
    kept = sum(torch.equal(m, p) for m, p in zip(mixed, plain, strict=True))
    assert mirrored + kept == 96
    assert 30 < mirrored < 66


def test_validation_holds_every_image_once_in_order_with_its_centre(digits, digits_folder, tmp_path):
    got = copies(val_loader(digits), 0, 35)
    assert [len(labels) for _, labels in got] == [8, 8, 8, 7]
    labels = torch.cat([labels for _, labels in got])
    assert labels.tolist() == [0] * 9 + [1] * 11 + [2] * 11
    # Written raw and at the crop's own side, the pixels are those of the file.
    write_splits(digits_folder, tmp_path, ("val",), resolve_parameters(mode="raw"), num_workers=1)
    files = sorted((digits_folder / "val").glob("*/*.png"))
    for ratio, side, start in ((IMAGENET_CENTER_CROP, 35, 2), (0.5, 20, 10), (1.0, 40, 0)):
        images = torch.cat([images for images, _ in copies(val_loader(tmp_path, ratio=ratio), 0, side)])
        for image, file in zip(images, files, strict=True):
            whole = np.array(Image.open(file).convert("RGB"))[start : start + side, start : start + side]
            assert np.array_equal(image.permute(1, 2, 0).numpy(), whole)


@pytest.mark.parametrize("resize", ["triangle", "area", "bicubic"])
def test_crops_are_resized_by_the_filter_that_is_asked_for(digits_folder, tmp_path, resize):
    """Raw samples, of which the pixels are known, in the validation's centre crop and in random ones."""
    write_splits(digits_folder, tmp_path, ("val",), resolve_parameters(mode="raw"), num_workers=1)
    files = sorted((digits_folder / "val").glob("*/*.png"))
    whole = [np.array(Image.open(file).convert("RGB")) for file in files]
    options, file = {"batch_size": 31, "num_workers": 1, "device": CPU}, BetonFile.open(tmp_path / "val.beton")
    for decoder in (CenterCropDecoder(24, resize=resize), RandomResizedCropDecoder(24, seed=1, resize=resize)):
        [(images, _)] = copies(CPUBatchLoader(file, decoder, ShardedOrder(31), **options), 0, 24)
        boxes = decoder.boxes(np.arange(31)).tolist()
        for image, pixels, (top, left, height, width, flip) in zip(images, whole, boxes, strict=True):
            expected = resized(pixels, (left, top, width, height), (24, 24), resize)[:, :: -1 if flip else 1]
            assert np.abs(image.permute(1, 2, 0).numpy() - expected.clip(0, 255)).max() <= 1


def test_an_error_while_decoding_reaches_the_consumer(digits):
    loader = val_loader(digits)
    loader.pipeline.code = ([(lambda batch_indices, **_: [1 / 0 for _ in batch_indices], [])], [])
    with pytest.raises(ZeroDivisionError):
        copies(loader, 0, 35)


def test_numba_runs_on_the_threads_of_openmp():
    assert numba.threading_layer() == os.environ.get("NUMBA_THREADING_LAYER", "omp")


def test_threads_that_two_loaders_cannot_share_are_refused(digits, monkeypatch):
    monkeypatch.setattr("numba.np.ufunc.parallel._threading_layer", "workqueue")
    with pytest.raises(ValueError, match=r"NUMBA_THREADING_LAYER: got workqueue, allowed are omp and tbb"):
        train_loader(digits)


def test_leaving_a_loop_early_ends_the_decoding_thread(digits):
    loader = train_loader(digits, batch=8)
    before = set(threading.enumerate())
    for _ in range(20):
        for _batch in loader.epoch(0, 32):
            break
    gc.collect()
    assert set(threading.enumerate()) <= before


def test_importing_and_iterating_leave_torchs_threads_alone(digits):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        copies(train_loader(digits, workers=1), 0, 32)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_more_workers_than_numba_has_threads_is_a_clear_error(digits):
    with pytest.raises(ValueError, match=r"data.num_workers: got 1000, allowed are at most \d+"):
        train_loader(digits, workers=1000)


def test_a_rank_without_validation_images_gets_no_batch(digits):
    loader = CPUBatchLoader(
        BetonFile.open(digits / "val.beton"),
        CenterCropDecoder(35),
        ShardedOrder(1, rank=0, world_size=2),
        batch_size=4,
        num_workers=1,
        device=CPU,
    )
    assert copies(loader, 0, 35) == []


def test_a_file_copied_elsewhere_gives_the_same_batches(digits, tmp_path):
    shutil.copytree(digits, tmp_path / "moved")
    assert same(copies(train_loader(digits), 0, 32), copies(train_loader(tmp_path / "moved"), 0, 32))


@pytest.fixture
def damaged(digits, tmp_path):
    """A copy of the digits' folder, and a function that damages some of the JPEG samples of a file of it."""
    shutil.copytree(digits, tmp_path / "damaged")

    def damage(split, places):
        beton = tmp_path / "damaged" / f"{split}.beton"
        samples = read_samples(beton)
        numbers = np.flatnonzero(samples.is_jpeg)[places]
        with beton.open("r+b") as file:
            for number in numbers:
                file.seek(int(samples.pointer[number]) + 2)
                file.write(b"\0" * 50)
        return tmp_path / "damaged", numbers.tolist()

    return damage


def test_a_damaged_sample_is_named_and_good_ones_are_still_read(digits, damaged):
    folder, [number] = damaged("val", [2])
    batches = val_loader(folder, batch=1).epoch(0, 35)
    got = [next(batches).images.clone() for _ in range(number)]
    with pytest.raises(ValueError, match=rf"val.beton: sample {number} is damaged: "):
        next(batches)
    assert all(torch.equal(a, b[0]) for a, b in zip(got, copies(val_loader(digits, batch=1), 0, 35), strict=False))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_next_good_sample_of_the_batch_stands_in_for_damaged_ones(digits, damaged, workers, capsys):
    folder, numbers = damaged("train", [0, 1, 7, 20, -1])
    good = train_loader(digits)
    expected, order = copies(good, 2, 32), good.order.sample_order(2).reshape(6, 16)
    loader = train_loader(folder, workers=workers, on_damaged="replace")
    for _ in range(2):  # the second time nothing is left of the first
        batches = loader.epoch(2, 32)
        got = [(batch.images.clone(), batch.labels.clone(), batch.replaced) for batch in batches]
        for samples, (images, labels, replaced), (right, right_labels) in zip(order, got, expected, strict=True):
            bad = np.isin(samples, numbers)
            assert replaced == bad.sum()
            for place in range(16):
                source = next(i % 16 for i in range(place, place + 16) if not bad[i % 16])
                assert torch.equal(images[place], right[source])
                assert labels[place] == right_labels[source]
        assert sum(replaced for *_, replaced in got) == 5
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5  # once per sample
    assert all(re.search(rf"train.beton: sample {n} is damaged: .*; it is skipped", "\n".join(lines)) for n in numbers)


def test_a_batch_of_damaged_samples_alone_is_an_error(damaged):
    folder, _ = damaged("train", slice(None))
    loader = train_loader(folder, batch=1, on_damaged="replace")
    with pytest.raises(ValueError, match=r"train.beton: all 1 samples of a batch are damaged"):
        copies(loader, 0, 32)


@pytest.mark.parametrize("batch", [1, 8, 31])
def test_damaged_validation_images_are_left_out(digits, damaged, batch):
    folder, numbers = damaged("val", [0, 3, 4, -1])
    right = [torch.cat(parts) for parts in zip(*copies(val_loader(digits), 0, 35), strict=True)]
    got = copies(val_loader(folder, batch=batch, on_damaged="leave_out"), 0, 35)
    images, labels = [torch.cat(parts) for parts in zip(*got, strict=True)]
    kept = np.setdiff1d(np.arange(31), numbers)
    assert torch.equal(images, right[0][kept])
    assert torch.equal(labels, right[1][kept])


def test_damaged_samples_free_their_batches(damaged):
    folder, _ = damaged("val", slice(None))
    loader = val_loader(folder, batch=31, on_damaged="leave_out")
    for resolution in (8, 700):
        copies(loader, 0, resolution)
    before = resident_mib()
    for _ in range(8):  # of 217 MiB each
        copies(loader, 0, 700)
    assert resident_mib() - before < 500


def test_a_changed_resolution_compiles_nothing(digits):
    loader = train_loader(digits)
    copies(loader, 0, 32)
    compiled = len(decode_batch.signatures)
    for resolution in (48, 64, 96):
        copies(loader, 0, resolution)
    copies(train_loader(digits, seed=3, workers=2), 0, 32)
    assert len(decode_batch.signatures) == compiled


def test_threads_take_every_number_once():
    @numba.njit(parallel=True)
    def take(counts):
        taken = np.zeros(1, np.int64)
        for _ in numba.prange(8):
            number = _take_next(taken.ctypes.data)
            while number < len(counts):
                counts[number] += 1
                number = _take_next(taken.ctypes.data)

    counts = np.zeros(1_000_000, np.int64)
    take(counts)
    assert (counts == 1).all()


def test_an_epoch_has_the_memory_of_the_one_before_and_of_no_other_that_goes_on(digits):
    loader = val_loader(digits)

    def addresses(epoch):
        return {batch.images.data_ptr() for batch in epoch}

    first = addresses(loader.epoch(0, 35))
    assert addresses(loader.epoch(1, 35)) == first
    with contextlib.closing(loader.epoch(2, 35)) as goes_on:
        next(goes_on)
        assert addresses(loader.epoch(2, 35)).isdisjoint(first)
    for resolution in (64, 35):
        assert same(copies(loader, 0, resolution), copies(val_loader(digits), 0, resolution))


@pytest.mark.slow
def test_numba_compiles_before_the_decoding_thread_begins_and_a_second_process_compiles_nothing(digits, tmp_path):
    # In a thread of its own, beside code that runs, numba has been seen to end the process.
    script = (
        "import sys, torch; from pathlib import Path; sys.path[:0] = sys.argv[2:]\n"
        "from numba_compilations import compiling_threads; from test_loader import *\n"
        "with compiling_threads() as threads:\n"
        "    copies(train_loader(Path(sys.argv[1]), workers=2), 0, 32)\n"
        "    copies(val_loader(Path(sys.argv[1])), 0, 35)\n"
        "print(len(threads) > 0, set(threads) <= {threading.main_thread()})"
    )
    command = [sys.executable, "-c", script, str(digits), *TEST_PATHS]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    told = [subprocess.run(command, capture_output=True, text=True, env=environment).stdout for _ in range(2)]
    assert told == ["True True\n", "False True\n"]


def test_stock_ffcv_loader_takes_our_operations(digits):
    loader = FFCVLoader(
        str(digits / "val.beton"),
        8,
        num_workers=1,
        order=ShardedOrder(31),
        drop_last=False,
        pipelines={"image": [CenterCropDecoder(35), ToTensor()], "label": None},
    )
    got = [images.clone() for (images,) in loader]
    expected = copies(val_loader(digits), 0, 35)
    assert all(torch.equal(a.permute(0, 3, 1, 2), b) for a, (b, _) in zip(got, expected, strict=True))


@pytest.mark.parametrize("quasi_random", [False, True])
def test_the_next_parts_of_the_file_are_asked_for_before_they_are_needed(tmp_path, quasi_random):
    (tmp_path / "images" / "a").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(96):
        pixels = generator.integers(0, 256, (96, 96, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / "a" / f"{number}.png")
    write_splits(tmp_path, tmp_path, ("images",), resolve_parameters(mode="raw"), num_workers=1)
    beton = tmp_path / "images.beton"
    order: ShuffledOrder = ShuffledOrder(96, seed=0, global_batch=8)
    if quasi_random:
        order = QuasiRandomOrder(96, seed=0, global_batch=8, block=8, window=3)
    file, windows = BetonFile.open(beton), None
    content, samples = file.storage.content, file.samples
    pages = np.zeros(-(-content.size // mmap.PAGESIZE), np.uint8)

    def in_memory():
        address, size = ctypes.c_void_p(content.ctypes.data), ctypes.c_size_t(content.size)
        assert ctypes.CDLL(None).mincore(address, size, ctypes.c_void_p(pages.ctypes.data)) == 0
        last = samples.pointer + samples.size - 1
        bounds = zip((samples.pointer // mmap.PAGESIZE).tolist(), (last // mmap.PAGESIZE).tolist(), strict=True)
        return {number for number, (first, last) in enumerate(bounds) if (pages[first : last + 1] & 1).all()}

    with beton.open("rb", buffering=0) as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if in_memory():
        pytest.skip("this file system does not give memory back")
    batches = np.split(order.sample_order(0), 12)
    if quasi_random:
        windows = Windows(file, order, epoch=0, first_batch=0, batch_size=8)
    reading = read_ahead(file, batches, windows)
    assert np.array_equal(next(reading), batches[0])
    asked = set(np.concatenate(batches[: BATCHES_READ_AHEAD + 1]).tolist())
    if quasi_random:
        for first, end in order.blocks(0)[:6].tolist():  # two windows
            asked |= set(range(first, end))
    deadline = time.monotonic() + 20
    while not asked <= in_memory() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert asked <= in_memory()
    assert len(in_memory()) < 96
    assert [batch.tolist() for batch in reading] == [batch.tolist() for batch in batches[1:]]


def test_waiting_for_the_device_ends_when_the_consumer_leaves():
    class Copy:
        def __init__(self, looks):
            self.looks = looks

        def query(self):
            self.looks -= 1
            return self.looks < 0

    iterator = types.SimpleNamespace(terminate_event=threading.Event())
    assert _BatchIterator._wait_for(iterator, Copy(3))
    iterator.terminate_event.set()
    assert _BatchIterator._wait_for(iterator, Copy(0))
    assert not _BatchIterator._wait_for(iterator, Copy(1_000_000))


@pytest.mark.gpu
def test_batches_reach_a_gpu_that_is_busy(digits):
    """The consumer's stream is kept busy, so that a missing wait between the streams would show."""
    ours, theirs = train_loader(digits, batch=4, device=torch.device("cuda", 0)), train_loader(digits, batch=4)
    weights = torch.randn(4096, 4096, device="cuda")
    for epoch in range(3):
        got = []
        for _batch in ours.epoch(epoch, 224):  # left at once, with copies under way
            break
        for batch in ours.epoch(epoch, 224):
            assert batch.images.is_contiguous(memory_format=torch.channels_last)
            for _ in range(20):
                weights = torch.tanh(weights @ weights)
            got.append((batch.images.clone(), batch.labels.clone()))
        assert same([(images.cpu(), labels.cpu()) for images, labels in got], copies(theirs, epoch, 224))


class SimulatedGpu:
    """What a loader calls of torch.cuda, noted in ``calls``; the device is done with everything at once."""

    def __init__(self):
        self.calls = []

    def install(self, monkeypatch, loader):
        gpu = self

        class Stream:
            def wait_stream(self, other):
                gpu.calls.append((self, other))

            def synchronize(self):
                gpu.calls.append(("synchronize", self))

        class Event:
            def record(self, stream):
                gpu.calls.append(("record", stream))

            def query(self):
                gpu.calls.append("query")
                return True

            def wait(self):
                gpu.calls.append("wait")

        self.consumer = Stream()
        replaced = {"Stream": Stream, "Event": Event, "current_stream": lambda: self.consumer}
        replaced |= {"stream": lambda _: contextlib.nullcontext(), "set_device": lambda _: None}
        for name, value in replaced.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr("ffcv.loader.epoch_iterator.IS_CUDA", True)
        loader.pipeline.device = types.SimpleNamespace(type="cuda")


def test_streams_wait_for_each_other_at_both_ends_of_an_epoch(digits, monkeypatch):
    """Simulated: the memory is the consumer's before and after."""
    loader, plain = train_loader(digits, batch=8), copies(train_loader(digits, batch=8), 0, 32)
    gpu = SimulatedGpu()
    gpu.install(monkeypatch, loader)
    for leave_after in (12, 2):
        gpu.calls.clear()
        batches = loader.epoch(0, 32)
        got = [(batch.images.clone(), batch.labels.clone()) for batch in itertools.islice(batches, leave_after)]
        batches.close()
        assert same(got, plain[:leave_after])
        first = [call for call in gpu.calls[:5] if call[1] is gpu.consumer]
        assert len({id(stream) for stream, _ in first}) == 5  # each of the slots' streams
        last = gpu.calls[-5:]  # before the memory on either side is given back
        assert {what for what, _ in last} == {"synchronize"}
        assert {id(stream) for _, stream in last} == {id(stream) for stream, _ in first}
        assert leave_after == 2 or gpu.calls.count("query") == 12 - 5  # before a slot's memory is written again
