"""Time of the augmentations of a batch, next to torchvision's image by image and kornia's.

Each round augments a batch once in every way, so that all of them meet the same other work; the table has medians and
ranges. torchvision's classes draw operations for one image, so they are called once per image; kornia's RandAugment
takes a batch and gives all its images the same operations.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import v2

from ffcv_imagenet.augment.augmentation import Augmentation
from ffcv_imagenet.augment.draws import Purpose
from ffcv_imagenet.augment.mixing import Mixing
from ffcv_imagenet.augment.normalize import Normalize
from ffcv_imagenet.augment.policies import POLICIES
from ffcv_imagenet.imagenet import IMAGENET_MEAN

#: Policies: the name, our options, and torchvision's class with the same distribution.
CASES: dict[str, tuple[str, dict, Callable[[], Callable[[Tensor], Tensor]] | None]] = {
    "RandAugment, nearest": ("randaugment", {"interpolation": "nearest"}, v2.RandAugment),
    "RandAugment, bilinear": (
        "randaugment",
        {"interpolation": "bilinear"},
        lambda: v2.RandAugment(interpolation=v2.InterpolationMode.BILINEAR),
    ),
    "TrivialAugment, nearest": ("trivialaugment", {"interpolation": "nearest"}, v2.TrivialAugmentWide),
    "AutoAugment, nearest": ("autoaugment", {"interpolation": "nearest"}, v2.AutoAugment),
    "timm's RandAugment, bicubic": ("timm_randaugment", {}, None),
    "3-Augment": ("three_augment", {}, None),
}
KORNIA = "RandAugment, bilinear"  # its operations that move pixels are bilinear

Step = Callable[[int], object]


def make_images(batch: int, side: int) -> Tensor:
    """Smooth random images with some noise, [B, 3, S, S] uint8, channels_last."""
    generator = torch.Generator().manual_seed(0)
    coarse = 255 * torch.rand(batch, 3, 8, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    noisy = smooth + 8 * torch.randn(smooth.shape, generator=generator)
    return noisy.clamp(0, 255).to(torch.uint8).contiguous(memory_format=torch.channels_last)


def make_steps(images: Tensor) -> Iterator[tuple[str, str, Step]]:
    """Case, way, and a function of the number of the round that augments ``images``."""
    batch, device = len(images), images.device
    each = images.contiguous()
    for case, (policy, options, theirs) in CASES.items():
        augmentation = Augmentation(
            policies={Purpose.POLICY: POLICIES.choose(policy, options)},
            normalize=Normalize().to(device),
            seed=0,
            mean=IMAGENET_MEAN,
            device=device,
        )
        yield case, "ours", _ours(augmentation, images, batch)
        if theirs is not None:
            yield case, "torchvision", _image_by_image(theirs(), each)
        if case == KORNIA and importlib.util.find_spec("kornia") is not None:
            yield case, "kornia", _kornias(each)


def _ours(augmentation: Augmentation, images: Tensor, batch: int) -> Step:
    memory = torch.empty_like(images)  # what a loader has filled; it is overwritten
    return lambda number: augmentation(memory.copy_(images), epoch=0, step=number, first=number * batch)


def _image_by_image(transform: Callable[[Tensor], Tensor], images: Tensor) -> Step:
    return lambda number: [transform(image) for image in images]


def _kornias(images: Tensor) -> Step:
    from kornia.augmentation import AugmentationSequential
    from kornia.augmentation.auto import RandAugment

    transform = AugmentationSequential(RandAugment(n=2, m=9))
    return lambda number: (transform(images.float() / 255) * 255).to(torch.uint8)


def measure(steps: Sequence[tuple[str, str, Step]], rounds: int, wait: Callable[[], None]) -> dict:
    """Seconds of every round by case and way; a first round, which compiles, is not counted."""
    seconds: dict[tuple[str, str], list[float]] = {(case, way): [] for case, way, _ in steps}
    for number in range(-1, rounds):
        for case, way, step in steps:
            wait()
            start = time.perf_counter()
            step(number + 1)
            wait()
            if number >= 0:
                seconds[case, way].append(time.perf_counter() - start)
    return seconds


def table(seconds: dict[tuple[str, str], list[float]]) -> str:
    """A Markdown table: milliseconds per batch as median and range, and how many times as long the others take."""
    lines = ["| policy | ours | torchvision | kornia | torchvision : ours | kornia : ours |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for case in CASES:
        ours = statistics.median(seconds[case, "ours"])
        cells, ratios = [], []
        for way in ("ours", "torchvision", "kornia"):
            values = seconds.get((case, way))
            cells.append("-" if values is None else _milliseconds(values))
            ratios.append("-" if values is None else f"{statistics.median(values) / ours:.1f}")
        lines.append(f"| {' | '.join([case, *cells, *ratios[1:]])} |")
    return "\n".join(lines) + "\n"


def _milliseconds(seconds: Sequence[float]) -> str:
    low, high = min(seconds), max(seconds)
    return f"{1e3 * statistics.median(seconds):.0f} ms ({1e3 * low:.0f} to {1e3 * high:.0f})"


def measure_mixing(images: Tensor, rounds: int) -> float:
    """Median seconds of what a step with mixing draws on the host."""
    mixing = Mixing(mixup=0.8, cutmix=1.0, prob=1.0, switch=0.5, first_unmixed=1 << 30, seed=0)
    seconds = []
    for number in range(rounds):
        start = time.perf_counter()
        mixing.draw(0, number, images.shape[-1])
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256, help="images")
    parser.add_argument("--side", type=int, default=224, help="of the images in pixels")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="on a CPU")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--markdown", type=Path, help="write the table here, too")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    images = make_images(options.batch, options.side).to(options.device)
    wait = torch.cuda.synchronize if options.device == "cuda" else lambda: None
    seconds = measure([*make_steps(images)], options.rounds, wait)
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    kornia = "" if importlib.util.find_spec("kornia") is not None else " kornia is not installed."
    text = (
        f"{name}, torch {torch.__version__}, Python {platform.python_version()}; {options.batch} images of "
        f"{options.side} px, medians and ranges of {options.rounds} rounds.{kornia} A step's mixture is drawn in "
        f"{1e6 * measure_mixing(images, options.rounds):.0f} us.\n\n{table(seconds)}"
    )
    print(text, end="")
    if options.markdown is not None:
        options.markdown.write_text(text)


if __name__ == "__main__":
    main()
