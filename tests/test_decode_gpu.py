"""Loading with the GPU's decoder: the CPU's batches, whatever lies in the file.

Without a GPU the kernels run on the host, in the same thread, queues and buffers.
"""

import shutil
import threading

import numpy as np
import pytest
import torch

from ffcv_imagenet.augment import Normalize
from ffcv_imagenet.data import decode_gpu
from ffcv_imagenet.data.beton import read_samples
from ffcv_imagenet.data.decode_cpu import CenterCropDecoder, RandomResizedCropDecoder
from ffcv_imagenet.data.decode_gpu import GPUBatchLoader
from ffcv_imagenet.data.index import EntryIndex
from ffcv_imagenet.data.kernels import CudaKernels
from ffcv_imagenet.data.loader import BatchLoader
from ffcv_imagenet.data.orders import ShardedOrder, ShuffledOrder

CPU = torch.device("cpu")


@pytest.fixture(params=["host", pytest.param("cuda", marks=pytest.mark.gpu)])
def kernels(request):
    if request.param == "host":
        return request.getfixturevalue("host_kernels")
    return CudaKernels(torch.device("cuda"))


def arguments(folder, split, batch):
    if split == "train":
        return (
            folder / "train.beton",
            RandomResizedCropDecoder(32, seed=5),
            ShuffledOrder(96, seed=5, global_batch=batch),
        )
    return folder / "val.beton", CenterCropDecoder(35), ShardedOrder(31)


def gpu_loader(kernels, folder, split="train", batch=16, dtype=torch.uint8):
    options = {"batch_size": batch, "num_workers": 1, "device": kernels.device, "dtype": dtype, "kernels": kernels}
    return GPUBatchLoader(*arguments(folder, split, batch), **options)


def cpu_loader(folder, split="train", batch=16):
    return BatchLoader(*arguments(folder, split, batch), batch_size=batch, num_workers=1, device=CPU)


def copies(loader, epoch, resolution):
    return [(batch.images.to(CPU, copy=True), batch.labels.to(CPU, copy=True)) for batch in loader.epoch(epoch, resolution)]


def same(a, b):
    return len(a) == len(b) > 0 and all(
        torch.equal(x[0], y[0]) and torch.equal(x[1], y[1]) for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("split", ["train", "val"])
def test_batches_are_the_cpus(kernels, digits, split):
    """JPEG and raw samples mixed, several epochs and resolutions, the last batch a smaller one."""
    ours, theirs = gpu_loader(kernels, digits, split), cpu_loader(digits, split)
    for epoch, resolution in ((0, 32), (3, 48), (3, 20)):
        got = copies(ours, epoch, resolution)
        assert same(got, copies(theirs, epoch, resolution))
        assert got[0][0].is_contiguous(memory_format=torch.channels_last)
    raw = ~read_samples(digits / f"{split}.beton").is_jpeg
    assert ours.cpu_share == np.mean(raw)
    assert theirs.cpu_share == 1
    assert len(ours) == len(theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_batches_are_normalised_in_the_training_type(kernels, digits, dtype):
    (images, _), *_ = copies(gpu_loader(kernels, digits, dtype=dtype), 1, 32)
    (pixels, _), *_ = copies(cpu_loader(digits), 1, 32)
    normalize = Normalize()
    assert images.dtype == dtype
    assert torch.equal(images, normalize(pixels).to(dtype))
    assert normalize(images) is images


def test_buffers_grow_with_the_batches(kernels, digits, monkeypatch):
    loader = gpu_loader(kernels, digits)
    for staging in loader.batch_decoder._staging:
        staging.buffer = kernels.host_buffer(1)
    assert same(copies(loader, 0, 32), copies(cpu_loader(digits), 0, 32))


def damage(folder, split, at):
    """Overwrite some bytes of the third JPEG, ``at`` (a share of its length); returns its number."""
    beton = folder / f"{split}.beton"
    samples = read_samples(beton)
    number = int(np.flatnonzero(samples.is_jpeg)[2])
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


def test_what_the_kernels_suspect_and_the_cpu_accepts_is_the_cpus(kernels, digits, tmp_path):
    """An entry with a wrong predictor: the kernels see that it does not fit, the CPU starts left of it."""
    shutil.copytree(digits, tmp_path / "changed")
    beton = tmp_path / "changed" / "val.beton"
    index = EntryIndex.path(beton)
    samples = read_samples(beton)
    number = int(np.flatnonzero(samples.is_jpeg)[0])
    content = bytearray(index.read_bytes())
    offsets = np.frombuffer(content, "<u8", len(samples.pointer) + 1, 128)
    entries = 128 + 8 * (len(samples.pointer) + 1) + int(offsets[number])
    content[entries + 4] ^= 1 << 5  # of the second of the row
    content[entries + 8 + 4] ^= 1 << 5
    index.write_bytes(content)
    loader = gpu_loader(kernels, tmp_path / "changed", "val")
    assert same(copies(loader, 0, 35), copies(cpu_loader(tmp_path / "changed", "val"), 0, 35))


def test_an_error_in_the_thread_reaches_the_consumer(kernels, digits, monkeypatch):
    loader = gpu_loader(kernels, digits)
    monkeypatch.setattr(loader.batch_decoder, "submit", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        copies(loader, 0, 32)


def test_leaving_early_ends_the_thread_and_the_next_epoch_is_whole(kernels, digits):
    loader = gpu_loader(kernels, digits, batch=8)
    before = threading.active_count()
    for _ in range(5):
        for _batch in loader.epoch(0, 32):
            break
    assert threading.active_count() == before
    assert same(copies(loader, 2, 32), copies(cpu_loader(digits, batch=8), 2, 32))


def test_batches_stay_whole_until_the_next_is_asked_for(kernels, digits):
    """The thread works ahead meanwhile."""
    expected = copies(cpu_loader(digits, batch=4), 1, 32)
    for batch, (images, labels) in zip(gpu_loader(kernels, digits, batch=4).epoch(1, 32), expected, strict=True):
        threading.Event().wait(0.01)
        assert torch.equal(batch.images.to(CPU), images)
        assert torch.equal(batch.labels.to(CPU), labels)


def test_users_mistakes_are_one_clear_line(kernels, digits, tmp_path, monkeypatch):
    options = {"batch_size": 8, "num_workers": 1, "dtype": torch.uint8}
    with pytest.raises(ValueError, match="data.decode: got gpu, allowed on the device cpu is cpu"):
        GPUBatchLoader(*arguments(digits, "val", 8), device=CPU, **options)
    shutil.copytree(digits, tmp_path / "plain")
    EntryIndex.path(tmp_path / "plain" / "val.beton").unlink()
    with pytest.raises(FileNotFoundError, match=r"val.beton has no entry-point index, which data.decode=gpu needs: python -m"):
        gpu_loader(kernels, tmp_path / "plain", "val")
    monkeypatch.setattr(decode_gpu.CudaKernels.__init__.__globals__["importlib"].util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match="data.decode: got gpu, which needs NVIDIA's cuda.core: pip install cuda-core"):
        CudaKernels(torch.device("cuda"))
