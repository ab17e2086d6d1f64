"""Data sets that several tests read: made once per session, never changed."""

# First of all, because it says how the threads of OpenMP wait, which torch reads when it is imported.
import ffcv_imagenet  # noqa: F401

# isort: split
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from gpu_kernels_on_host import HostKernels, build
from native_library import Decoder

from ffcv_imagenet.data.digits import draw_digits
from ffcv_imagenet.data.write.parameters import resolve_parameters
from ffcv_imagenet.data.write.splits import write_splits

#: The tests' workers are more than the cores.
torch.set_num_threads(1)


def pytest_xdist_auto_num_workers():
    """For ``-n auto``: twice as many as cores, because many tests wait for processes, time limits and the disk."""
    return len(os.sched_getaffinity(0)) * 2


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    # The files with the most slow tests first, so that at the end no worker is left alone with one of them.
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory) -> Path:
    """An image folder of the digits 0, 1 and 2: 96 images for training and 31 for validation."""
    whole = tmp_path_factory.mktemp("digits")
    draw_digits(whole)
    folder = tmp_path_factory.mktemp("few_digits")
    for split, count in (("train", 32), ("val", 11)):
        for label in "012":
            (folder / split / label).mkdir(parents=True)
            for image in sorted((whole / split / label).iterdir())[: count - (split == "val" and label == "0") * 2]:
                shutil.copy(image, folder / split / label)
    return folder


@pytest.fixture(scope="session")
def digits(digits_folder, tmp_path_factory) -> Path:
    """A folder with train.beton (96 images) and val.beton (31 images), three classes, JPEG and raw mixed."""
    out = tmp_path_factory.mktemp("beton")
    parameters = resolve_parameters(mode="proportion", compress_probability=0.5)
    write_splits(digits_folder, out, ("train", "val"), parameters, num_workers=1)
    return out


@pytest.fixture(params=["simd", "scalar"])
def decoder(request):
    """A context of the native decoder for each of its code paths."""
    decoder = Decoder(simd=request.param == "simd")
    if decoder.simd != (request.param == "simd"):
        pytest.skip("no SIMD on this processor")
    return decoder


@pytest.fixture(scope="session")
def host_kernels(tmp_path_factory):
    """The GPU's kernels, compiled for the host."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    return HostKernels(build(tmp_path_factory.mktemp("kernels")))


@pytest.fixture(scope="session")
def runs(digits, tmp_path_factory) -> Path:
    """A folder with the runs ``baseline`` and ``maxsup``: resnet10 at 32 pixels, one epoch on the digits 0, 1, 2."""
    folder = tmp_path_factory.mktemp("runs")
    import train_imagenet

    words = [f"--data.train={digits / 'train.beton'}", f"--data.val={digits / 'val.beton'}", "--training.epochs=1"]
    words += ["--model.arch=resnet10", "--training.batch_size=32", "--lr.base_batch=32", "--lr.lr=0.1"]
    words += ["--resolution.min_res=32", "--resolution.max_res=32", "--validation.resolution=32", "--data.flip=0"]
    words += ["--validation.batch_size=8", "--dist.device=cpu", "--dist.cpu_threads=1", f"--logging.folder={folder}"]
    for loss in ("baseline", "maxsup"):
        train_imagenet.main([*words, f"--loss.name={loss}", f"--logging.name={loss}"])
    return folder
