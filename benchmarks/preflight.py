"""Can this machine run the rest? Imports, one kernel of the decoder, one compiled step; names what is missing.

    python benchmarks/preflight.py [--device cpu]

Seconds, not minutes. Exit status 1 where something is missing or fails.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

#: What the project and its tests import, and what is there to say of it.
MODULES = ("torch", "torchvision", "numba", "numpy", "cv2", "scipy", "pandas", "PIL", "matplotlib", "sklearn", "yaml")
MODULES += ("rich", "tqdm", "pytest", "setuptools", "fastargs", "ffcv", "cuda.core")


def check_imports() -> str:
    missing, versions = [], []
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except Exception as error:  # a library that a package is linked to may be what is missing
            missing.append(f"{name} ({' '.join(str(error).split())[:100]})")
        else:
            versions.append(f"{name} {getattr(module, '__version__', '')}".strip())
    if missing:
        raise ImportError(f"missing: {', '.join(missing)}")
    return f"Python {sys.version.split()[0]}, {', '.join(versions[:4])}, and {len(versions) - 4} more"


def check_device(device: str) -> str:
    import torch

    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {len(os.sched_getaffinity(0))} cores"
    return f"CPU, {len(os.sched_getaffinity(0))} cores"


def check_kernels(device: str) -> str:
    """Four images decoded on both sides as in a training, and compared; without a GPU the kernels are compiled."""
    import numpy as np
    import torch
    from PIL import Image
    from prepare import write_repeated

    from ffcv_imagenet.data.read.beton_file import BetonFile
    from ffcv_imagenet.data.read.decode_cpu import RandomResizedCropDecoder
    from ffcv_imagenet.data.read.kernels import compile_kernels
    from ffcv_imagenet.data.read.loader_cpu import CPUBatchLoader
    from ffcv_imagenet.data.read.loader_gpu import GPUBatchLoader
    from ffcv_imagenet.data.read.orders import ShuffledOrder

    with tempfile.TemporaryDirectory() as folder:
        file, beton = Path(folder) / "image.jpg", Path(folder) / "images.beton"
        rows, columns = np.mgrid[:120, :160]
        Image.fromarray(np.stack([rows, columns, rows + columns], 2).astype(np.uint8)).save(file, quality=90)
        write_repeated([file.read_bytes()], beton, 4)

        def images(kind: type, device: torch.device, **options: object) -> torch.Tensor:
            decoder, order = RandomResizedCropDecoder(32, seed=0), ShuffledOrder(4, 0, 4)
            loader = kind(BetonFile.open(beton), decoder, order, batch_size=4, num_workers=1, device=device, **options)
            return next(loader.epoch(0, 32)).images.cpu().clone()

        expected = images(CPUBatchLoader, torch.device("cpu"))
        if device == "cpu":
            return f"{len(compile_kernels('sm_90').code)} bytes for sm_90; {len(expected)} images decoded by the CPU"
        got = images(GPUBatchLoader, torch.device("cuda", 0), dtype=torch.uint8)
    if not torch.equal(got, expected):
        raise ArithmeticError(f"pixels differ from the CPU's by up to {(got.int() - expected.int()).abs().max()}")
    return f"{len(got)} images, the CPU's pixels"


def check_step(device: str) -> str:
    """One step of a small network, compiled and eager."""
    import torch

    if device == "cpu" and shutil.which("c++") is None:
        raise FileNotFoundError("missing: c++, which torch.compile needs on a CPU")
    torch.manual_seed(0)
    step = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()).to(device)
    images, gradients = torch.randn(4, 3, 16, 16, device=device), []
    for run in (step, torch.compile(step)):
        step.zero_grad()
        run(images).square().mean().backward()
        gradients.append(step[0].weight.grad.clone())
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-2, atol=1e-3)
    return "the compiler's gradients are the eager ones"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    device = parser.parse_args(argv).device
    checks: list[tuple[str, Callable[[], str]]] = [
        ("packages", check_imports),
        ("device", lambda: check_device(device)),
        ("decoder's kernels", lambda: check_kernels(device)),
        ("compiled step", lambda: check_step(device)),
    ]
    failed = False
    for name, check in checks:
        start = time.perf_counter()
        try:
            answer = check()
        except Exception as error:
            failed, answer = True, f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        print(f"{name}: {answer} ({time.perf_counter() - start:.1f} s)", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
