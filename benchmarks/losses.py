"""Time of a batch's loss and its gradient, for every loss, next to plain cross entropy.

Each round computes every loss once, so that all of them meet the same caches and the same other work; the table has
medians. ``baseline`` is plain cross entropy with what every loss does: the log's columns.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ffcv_imagenet.losses import LOSSES
from ffcv_imagenet.train.loss_module import LossModule

PLAIN = "F.cross_entropy"
#: Variants that take another way.
MORE = {"zipf_label_smoothing, ranking=logits": ("zipf_label_smoothing", {"ranking": "logits"})}
#: The losses that may take this many times plain cross entropy; all others :data:`ALLOWED`.
ALLOWED, ALLOWED_BY_NAME = 2.0, {"zipf_label_smoothing": 4.0}


def make_steps(options: argparse.Namespace) -> tuple[dict[str, Callable[[], None]], dict[str, int]]:
    """By name, a function that computes a loss and its gradient, and the bytes of the loss's state."""
    device = torch.device(options.device)
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(options.batch, options.classes, generator=generator)).to(device).requires_grad_()
    target = torch.randint(options.classes, (options.batch,), generator=generator).to(device)
    # As of a trained model: most of the locations see one class or its neighbours.
    shape = (options.batch, options.locations)
    spread = (10 * torch.randn(shape, generator=generator).abs()).long().to(device)
    local_classes = (target[:, None] + spread) % options.classes

    def step(loss: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], None]:
        compiled = torch.compile(loss, dynamic=False) if options.compile else loss

        def run() -> None:
            logits.grad = None
            compiled(logits, *inputs).backward()

        return run

    steps, memory = {PLAIN: step(F.cross_entropy, target)}, {PLAIN: 0}
    for name, (kind, given) in {**{name: (name, {}) for name in LOSSES.kinds}, **MORE}.items():
        module = LossModule(LOSSES.choose(kind, given), [1300] * options.classes, epochs=100).to(device)
        inputs = (target, local_classes) if module.loss.reads_local_classes else (target,)
        steps[name] = step(module, *inputs)
        memory[name] = sum(buffer.numel() * buffer.element_size() for buffer in module.buffers())
    return steps, memory


def measure(steps: dict[str, Callable[[], None]], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each step over the rounds, after some that are not counted."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(-5, rounds):
        for name, step in steps.items():
            wait()
            start = time.perf_counter()
            step()
            wait()
            if number >= 0:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def table(seconds: dict[str, float], memory: dict[str, int], classes: int) -> str:
    """A Markdown table: milliseconds, their ratio to plain cross entropy, what is allowed, and the state's size."""
    lines = ["| loss | ms | x plain | allowed | state in K^2 floats |", "|---|---:|---:|---:|---:|"]
    for name, value in seconds.items():
        allowed = "-" if name in (PLAIN, *MORE) else f"{ALLOWED_BY_NAME.get(name, ALLOWED):g}"
        size = memory[name] / (4 * classes**2)
        lines.append(f"| {name} | {1e3 * value:.3f} | {value / seconds[PLAIN]:.2f} | {allowed} | {size:.2f} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256, help="images")
    parser.add_argument("--classes", type=int, default=1000, help="K")
    parser.add_argument("--locations", type=int, default=49, help="of the feature map: 7 x 7 at 224 px")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="on a CPU")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="compiled, as trainings on a GPU are")
    parser.add_argument("--markdown", type=Path, help="write the table here, too")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    steps, memory = make_steps(options)
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    header = (
        f"{name}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"{'compiled' if options.compile else 'eager'}; B = {options.batch}, K = {options.classes}, "
        f"{options.locations} locations, medians of {options.rounds} rounds.\n\n"
    )
    text = header + table(measure(steps, options.rounds, options.device), memory, options.classes)
    print(text, end="")
    if options.markdown is not None:
        options.markdown.write_text(text)


if __name__ == "__main__":
    main()
