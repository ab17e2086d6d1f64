"""Loading with the GPU's decoder: the CPU's batches, whatever lies in the file.

Without a GPU the kernels run on the host, in the same thread, queues and buffers.
"""

import functools
import shutil
import threading
import time

import numba
import numpy as np
import pytest
import torch
from digit_loaders import CPU, copies
from equality import same
from images import draw_folder
from numba_compilations import compiling_threads

from ffcv_imagenet.augment.normalize import Normalize
from ffcv_imagenet.data.format.beton import read_samples
from ffcv_imagenet.data.format.index import EntryIndex
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.read import decode_cpu, decode_gpu, loader_cpu
from ffcv_imagenet.data.read.beton_file import BetonFile
from ffcv_imagenet.data.read.decode_cpu import CenterCropDecoder, RandomResizedCropDecoder
from ffcv_imagenet.data.read.kernels import CudaKernels
from ffcv_imagenet.data.read.loader_cpu import CPUBatchLoader
from ffcv_imagenet.data.read.loader_gpu import GPUBatchLoader
from ffcv_imagenet.data.read.orders import ShardedOrder, ShuffledOrder
from ffcv_imagenet.data.write.parameters import resolve_parameters
from ffcv_imagenet.data.write.splits import write_splits


@pytest.fixture(params=["host", pytest.param("cuda", marks=pytest.mark.gpu)])
def kernels(request):
    if request.param == "host":
        return request.getfixturevalue("host_kernels")
    return CudaKernels(torch.device("cuda"))


#: Figures that are nobody's default.
NORMALIZE = Normalize((0.3, 0.5, 0.7), (0.2, 0.25, 0.5))


def arguments(folder, split, batch, resize="triangle"):
    if split == "train":
        return (
            BetonFile.open(folder / "train.beton"),
            RandomResizedCropDecoder(32, seed=5, resize=resize),
            ShuffledOrder(96, seed=5, global_batch=batch),
        )
    return BetonFile.open(folder / "val.beton"), CenterCropDecoder(35, resize=resize), ShardedOrder(31)


def gpu_loader(kernels, folder, split="train", batch=16, dtype=torch.uint8, on_damaged="fail"):
    options = {"batch_size": batch, "num_workers": 1, "device": kernels.device, "dtype": dtype, "kernels": kernels}
    return GPUBatchLoader(*arguments(folder, split, batch), normalize=NORMALIZE, on_damaged=on_damaged, **options)


def cpu_loader(folder, split="train", batch=16, on_damaged="fail"):
    options = {"batch_size": batch, "num_workers": 1, "device": CPU, "on_damaged": on_damaged}
    return CPUBatchLoader(*arguments(folder, split, batch), **options)


@functools.cache
def whole_files(kernels, folder, split="train", batch=16):
    """Loaders by GPU and by CPU of files that no test changes."""
    return gpu_loader(kernels, folder, split, batch), cpu_loader(folder, split, batch)


def open_samples(beton):
    return read_samples(beton, Manifest.read(beton))


def test_numba_compiles_before_the_decoding_thread_begins(kernels, digits, monkeypatch):
    loader, function = gpu_loader(kernels, digits), decode_cpu.decode_batch.py_func
    monkeypatch.setattr(decode_cpu, "decode_batch", numba.njit(nogil=True)(function))  # not yet compiled
    with compiling_threads() as threads:
        copies(loader, 0, 32)
    assert threads
    assert set(threads) == {threading.main_thread()}


def test_a_loader_for_the_gpu_builds_nothing_that_only_the_cpus_uses(host_kernels, digits, monkeypatch):
    monkeypatch.setattr(loader_cpu, "Pipeline", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cpu_loader(digits)
    assert len(copies(gpu_loader(host_kernels, digits), 0, 32)) == 6


@pytest.mark.parametrize("split", ["train", "val"])
def test_batches_are_the_cpus(kernels, digits, split):
    """JPEG and raw samples mixed, several epochs and resolutions, the last batch a smaller one."""
    ours, theirs = whole_files(kernels, digits, split)
    for epoch, resolution in ((0, 32), (3, 48), (3, 20)):
        got = copies(ours, epoch, resolution)
        assert same(got, copies(theirs, epoch, resolution))
        assert got[0][0].is_contiguous(memory_format=torch.channels_last)
    raw = ~open_samples(digits / f"{split}.beton").is_jpeg
    assert ours.cpu_share == np.mean(raw)
    assert theirs.cpu_share == 1
    assert len(ours) == len(theirs)


@pytest.mark.parametrize("resize", ["area", "bicubic"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_batches_are_the_cpus_with_every_filter(kernels, digits, split, resize):
    options = {"batch_size": 16, "num_workers": 1, "device": kernels.device}
    of_gpu = options | {"dtype": torch.uint8, "normalize": NORMALIZE, "kernels": kernels}
    ours = GPUBatchLoader(*arguments(digits, split, 16, resize), **of_gpu)
    theirs = CPUBatchLoader(*arguments(digits, split, 16, resize), **options | {"device": CPU})
    got = copies(ours, 2, 48)
    assert same(got, copies(theirs, 2, 48))
    assert not same(got, copies(whole_files(kernels, digits, split)[1], 2, 48))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_batches_are_normalised_in_the_training_type(kernels, digits, dtype):
    (images, _), *_ = copies(gpu_loader(kernels, digits, dtype=dtype), 1, 32)
    (pixels, _), *_ = copies(whole_files(kernels, digits)[1], 1, 32)
    assert images.dtype == dtype
    assert torch.equal(images, NORMALIZE(pixels).to(dtype))
    assert NORMALIZE(images) is images
    mean, std = (np.reshape(values, (1, 3, 1, 1)) for values in ((0.3, 0.5, 0.7), (0.2, 0.25, 0.5)))
    np.testing.assert_allclose(NORMALIZE(pixels).numpy(), (pixels.numpy() / 255 - mean) / std, rtol=0, atol=2e-6)


def test_buffers_grow_with_the_batches(kernels, digits):
    loader, theirs = whole_files(kernels, digits)
    for staging in loader.batch_decoder._staging:
        staging.buffer = kernels.host_buffer(1)
    assert same(copies(loader, 0, 32), copies(theirs, 0, 32))


def damage(folder, split, at, jpeg=2):
    """Overwrite some bytes of a JPEG (of the third), ``at`` (a share of its length); returns its number."""
    beton = folder / f"{split}.beton"
    samples = open_samples(beton)
    number = int(np.flatnonzero(samples.is_jpeg)[jpeg])
    with beton.open("r+b") as file:
        file.seek(int(samples.pointer[number]) + int(at * int(samples.size[number])))
        file.write(b"\xff\xd9" * 20)
    return number


@pytest.mark.parametrize("at", [0.01, 0.9], ids=["header", "data"])
def test_a_damaged_sample_gives_the_cpus_error(kernels, digits, tmp_path, at):
    shutil.copytree(digits, tmp_path / "damaged")
    number = damage(tmp_path / "damaged", "val", at)
    messages = []
    for loader in (cpu_loader(tmp_path / "damaged", "val", 4), gpu_loader(kernels, tmp_path / "damaged", "val", 4)):
        batches = loader.epoch(0, 35)
        good = [next(batches).labels.tolist() for _ in range(number // 4)]
        with pytest.raises(ValueError, match=rf"val.beton: sample {number} is damaged: ") as caught:
            next(batches)
        messages.append((str(caught.value), good))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("on_damaged", ["replace", "leave_out"])
@pytest.mark.parametrize("at", [0.01, 0.9], ids=["header", "data"])
def test_damaged_samples_are_replaced_or_left_out_as_by_the_cpu(kernels, digits, tmp_path, at, on_damaged):
    shutil.copytree(digits, tmp_path / "damaged")
    damage(tmp_path / "damaged", "val", at)
    ours = gpu_loader(kernels, tmp_path / "damaged", "val", 4, on_damaged=on_damaged)
    theirs = cpu_loader(tmp_path / "damaged", "val", 4, on_damaged=on_damaged)
    replaced = [[batch.replaced for batch in loader.epoch(0, 35)] for loader in (ours, theirs)]
    assert replaced[0] == replaced[1]
    assert sum(replaced[0]) == (on_damaged == "replace")
    assert same(copies(ours, 0, 35), copies(theirs, 0, 35))
    # ... and with one sample per batch nothing is left of one.
    if on_damaged == "leave_out":
        alone = gpu_loader(kernels, tmp_path / "damaged", "val", 1, on_damaged=on_damaged)
        assert len(copies(alone, 0, 35)) == 30


def test_a_sample_whose_first_substitute_is_damaged_too_counts_once(kernels, digits, tmp_path):
    shutil.copytree(digits, tmp_path / "damaged")
    damage(tmp_path / "damaged", "val", 0.01, jpeg=2)  # noticed while gathering ...
    damage(tmp_path / "damaged", "val", 0.9, jpeg=3)  # ... but this only by the kernels
    ours = gpu_loader(kernels, tmp_path / "damaged", "val", 31, on_damaged="replace")
    theirs = cpu_loader(tmp_path / "damaged", "val", 31, on_damaged="replace")
    assert [[batch.replaced for batch in loader.epoch(0, 35)] for loader in (ours, theirs)] == [[2], [2]]
    assert same(copies(ours, 0, 35), copies(theirs, 0, 35))


def test_an_epoch_can_begin_in_its_middle(kernels, digits):
    ours, theirs = whole_files(kernels, digits)
    whole = copies(theirs, 2, 32)
    rest = [(batch.images.to(CPU, copy=True), batch.labels.to(CPU, copy=True)) for batch in ours.epoch(2, 32, 4)]
    assert same(rest, whole[4:])


def test_what_the_kernels_suspect_and_the_cpu_accepts_is_the_cpus(kernels, tmp_path):
    """An entry in the middle of a crop with a wrong predictor: the CPU starts left of it and never looks."""
    folder = draw_folder(tmp_path / "images", train=1, val=2, size=(40, 240))
    write_splits(folder, tmp_path, ("val",), resolve_parameters(mode="jpg"))
    beton = tmp_path / "val.beton"
    content = bytearray(EntryIndex.path(beton).read_bytes())
    offsets = np.frombuffer(bytes(content), "<u8", 4, 128)
    entries = 128 + 8 * 5 + int(offsets[1])
    for row in range(3):
        content[entries + 8 * (4 * row + 2) + 4] ^= 1 << 5
    EntryIndex.path(beton).write_bytes(content)
    shares, batches, file = [], [], BetonFile.open(beton)
    for loader in (
        CPUBatchLoader(file, CenterCropDecoder(35), ShardedOrder(4), batch_size=4, num_workers=1, device=CPU),
        GPUBatchLoader(
            file, CenterCropDecoder(35), ShardedOrder(4), batch_size=4, num_workers=1, device=kernels.device,
            dtype=torch.uint8, normalize=NORMALIZE, kernels=kernels,
        ),
    ):  # fmt: skip
        batches.append(copies(loader, 0, 35))
        shares.append(loader.cpu_share)
    assert same(*batches)
    assert shares == [1, 0.25]


def test_an_error_in_the_thread_reaches_the_consumer(kernels, digits, monkeypatch):
    loader, _ = whole_files(kernels, digits)
    monkeypatch.setattr(loader.batch_decoder, "submit", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        copies(loader, 0, 32)


def test_leaving_early_ends_the_thread_and_the_next_epoch_is_whole(kernels, digits):
    loader, theirs = whole_files(kernels, digits, batch=4)
    before = threading.active_count()
    for _ in range(5):
        for _batch in loader.epoch(0, 32):
            break
    assert threading.active_count() == before
    assert same(copies(loader, 2, 32), copies(theirs, 2, 32))


def test_batches_stay_whole_until_the_next_is_asked_for(kernels, digits):
    """The thread works ahead meanwhile."""
    ours, theirs = whole_files(kernels, digits, batch=4)
    for batch, (images, labels) in zip(ours.epoch(1, 32), copies(theirs, 1, 32), strict=True):
        time.sleep(0.01)
        assert torch.equal(batch.images.to(CPU), images)
        assert torch.equal(batch.labels.to(CPU), labels)


def test_users_mistakes_are_one_clear_line(kernels, digits, tmp_path, monkeypatch):
    options = {"batch_size": 8, "num_workers": 1, "dtype": torch.uint8, "normalize": NORMALIZE}
    with pytest.raises(ValueError, match=r"data.decode: got gpu, allowed on the device cpu is cpu"):
        GPUBatchLoader(*arguments(digits, "val", 8), device=CPU, **options)
    shutil.copytree(digits, tmp_path / "plain")
    EntryIndex.path(tmp_path / "plain" / "val.beton").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"val.beton has no entry-point index, which data.decode=gpu needs: python -m"
    ):
        gpu_loader(kernels, tmp_path / "plain", "val")
    monkeypatch.setattr(CudaKernels.__init__.__globals__["importlib"].util, "find_spec", lambda _: None)
    with pytest.raises(
        ValueError, match=r"data.decode: got gpu, which needs NVIDIA's cuda.core: pip install cuda-core"
    ):
        CudaKernels(torch.device("cuda"))


def test_a_training_gives_the_same_weights(host_kernels, digits, tmp_path, monkeypatch):
    """On the CPU, where everything is float32: the same images in the same order, and so the same numbers."""
    from whole_runs import config, log, weights

    from ffcv_imagenet import experiment, loaders

    monkeypatch.setattr(loaders, "GPUBatchLoader", functools.partial(GPUBatchLoader, kernels=host_kernels))
    for decode in ("cpu", "gpu"):
        changes = {"training.epochs": 1, "lr.peak_epoch": 0.5, "resolution.end_ramp": 0}
        changes |= {"data.train": digits / "val.beton", "data.on_wrong_split": "warn"}  # 31 images: a step is enough
        changes |= {"data.decode": decode, "logging.name": decode}
        experiment.train(config(digits, tmp_path, **changes))
    assert same(weights(tmp_path, "cpu", 1), weights(tmp_path, "gpu", 1))
    assert log(tmp_path, "cpu")[0]["cpu_decoded"] == 1
    assert 0.2 < log(tmp_path, "gpu")[0]["cpu_decoded"] < 0.8


def test_auto_takes_the_gpu_where_it_can_and_cores_are_few(digits, tmp_path, monkeypatch):
    gpu, indexed, plain = torch.device("cuda"), digits / "train.beton", tmp_path / "plain.beton"
    assert decode_gpu.choose_decoder("gpu", plain, CPU, 64) == "gpu"
    assert decode_gpu.choose_decoder("cpu", indexed, gpu, 1) == "cpu"
    monkeypatch.setattr(decode_gpu, "is_installed", lambda: True)
    assert decode_gpu.choose_decoder("auto", indexed, gpu, 2) == "gpu"
    assert decode_gpu.choose_decoder("auto", indexed, gpu, decode_gpu.CORES_ENOUGH) == "cpu"
    assert decode_gpu.choose_decoder("auto", indexed, CPU, 2) == "cpu"
    assert decode_gpu.choose_decoder("auto", plain, gpu, 2) == "cpu"
    monkeypatch.setattr(decode_gpu, "is_installed", lambda: False)
    assert decode_gpu.choose_decoder("auto", indexed, gpu, 2) == "cpu"


@pytest.mark.gpu
def test_decoding_beside_work_on_another_stream(digits):
    """The consumer's stream is kept busy, so that a missing wait between the streams would show."""
    ours, theirs = whole_files(CudaKernels(torch.device("cuda")), digits, batch=4)
    weights, got = torch.randn(4096, 4096, device="cuda"), []
    for batch in ours.epoch(1, 32):
        for _ in range(20):
            weights = torch.tanh(weights @ weights)
        got.append((batch.images.clone(), batch.labels.clone()))
    got = [(images.cpu(), labels.cpu()) for images, labels in got]
    assert same(got, copies(theirs, 1, 32))
