"""What train_speed.py has measured, as tables, with the targets and the projection to ImageNet."""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from contenders import CONTENDERS
from loader import table
from step_limits import cost_of_image
from steps import ABLATIONS, CPU_ABLATIONS

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.options import build, read_yaml
from ffcv_imagenet.run.folder import describe_environment

NOT_MEASURED = "not measured"
LOADERS = ("project-index", "ffcv", "torchvision")

#: What is to be reached with ResNet-50: times the reference step at these sides, and share of the ceiling end to end.
CEILING_TARGET, TARGET_SIDES = 1.5, (160, 192)
END_TO_END_TARGET = 0.95

TRAIN_IMAGES, VAL_IMAGES = 1_281_167, 50_000
#: Recipes that are projected, and the minutes that libffcv/ffcv-imagenet publishes for them.
PUBLISHED = {
    "rn50_16_epochs": "14.9 on 8 A100",
    "rn50_88_epochs": "77.2 on 8 A100",
    "rn18_16_epochs": "35.0 on 1 A100",
    "rn18_88_epochs": "187.3 on 1 A100",
}
RECIPES = Path(__file__).parent.parent / "rn_configs"


@dataclass
class Cell:
    """An architecture at one image side: images/s in every round, and what else there is to know."""

    ceiling: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    end_to_end: dict[str, list[float]] = field(default_factory=dict)
    compile_seconds: float = 0.0
    peak_bytes: int = 0


@dataclass
class Results:
    """All that was measured; what was not is empty."""

    cells: dict[tuple[str, int], Cell] = field(default_factory=dict)
    evaluation: dict[str, list[float]] = field(default_factory=dict)
    loaders: dict[int, dict[str, list[float]]] = field(default_factory=dict)
    ablation: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    reference_end_to_end: list[float] = field(default_factory=list)
    matmul_flops: float = 0.0
    copy_bytes: float = 0.0
    left_out: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0


def _show(value: float, digits: int = 0, unit: str = "") -> str:
    return f"{value:.{digits}f}{unit}" if value else NOT_MEASURED


def _verdict(value: float, target: float, digits: int, factor: float, unit: str) -> str:
    met = "met" if value >= target else "**not met**"
    return f"{factor * value:.{digits}f}{unit}, target {factor * target:.{digits}f}{unit}: {met}"


def step_table(results: Results, on_gpu: bool) -> list[str]:
    """Lines of the table of steps."""
    decodes = sorted({decode for cell in results.cells.values() for decode in cell.end_to_end})
    head = ["model, px", "ceiling, img/s", "limit, img/s", "of the limit", "reference, img/s", "ratio", "TFLOP/s"]
    head += [
        "of the matmul rate",
        "peak GiB",
        "compiled in s",
        *(f"end to end ({d}), img/s | without data" for d in decodes),
    ]
    head = [column for name in head for column in name.split(" | ")]
    rows = []
    for (arch, side), cell in results.cells.items():
        rate, reference = median(cell.ceiling), median(cell.reference)
        flops = rate * cost_of_image(arch, side).flops if on_gpu else 0.0
        limit, reason = _limit(results, arch, side)
        judged = on_gpu and arch == "resnet50" and side in TARGET_SIDES
        ratio = _show(rate / reference, 2)
        row = [
            f"{arch}, {side}",
            _range(cell.ceiling),
            f"{limit:.0f} by {reason}" if limit else NOT_MEASURED,
            _show(100 * rate / limit, 1, " %") if limit else NOT_MEASURED,
            _range(cell.reference),
            _verdict(rate / reference, CEILING_TARGET, 2, 1, "") if judged else ratio,
            _show(flops / 1e12, 1),
            _show(100 * flops / results.matmul_flops, 1, " %") if results.matmul_flops else NOT_MEASURED,
            _show(cell.peak_bytes / 2**30, 1),
            _show(cell.compile_seconds, 1),
        ]
        for decode in decodes:
            rates = cell.end_to_end.get(decode, [])
            if not rates:
                row += [NOT_MEASURED] * 2
                continue
            share = median(rates) / rate
            judged = on_gpu and arch == "resnet50"
            of_time = _show(100 * max(0.0, 1 - share), 1, " %") if share < 1 else "0.0 %"
            if judged:
                of_time += f"; {_verdict(share, END_TO_END_TARGET, 1, 100, ' %')}"
            row += [_range(rates), of_time if on_gpu else NOT_MEASURED]
        rows.append(row)
    return table(head, rows)


def _limit(results: Results, arch: str, side: int) -> tuple[float, str]:
    """Images/s that the card's measured rates allow, and by what; 0 without a card."""
    if not results.matmul_flops or not results.copy_bytes:
        return 0.0, ""
    return cost_of_image(arch, side).limit(results.matmul_flops, results.copy_bytes)


def limit_table(results: Results, cells: Sequence[tuple[str, int]]) -> list[str]:
    """Lines of the table of what an image costs, and what the card's measured rates make of it."""
    rows = []
    for arch, side in cells:
        cost = cost_of_image(arch, side)
        parts = (cost.convolutions, cost.normalisations, cost.blurs, cost.additions, cost.others)
        rates = [results.matmul_flops / cost.flops, results.copy_bytes / cost.bytes]
        rows.append(
            [
                f"{arch}, {side}",
                f"{cost.flops / 1e9:.1f}",
                f"{cost.bytes / 1e6:.0f} ({', '.join(f'{part / 1e6:.0f}' for part in parts)})",
                *(_show(rate) for rate in rates),
            ]
        )
    head = ["model, px", "GFLOP per image", "MB per image (convolutions, BN and ReLU, blur, sums, others)"]
    return table([*head, "limit by operations, img/s", "limit by bytes, img/s"], rows)


def _range(rates: Sequence[float]) -> str:
    if not rates:
        return NOT_MEASURED
    digits = 0 if median(rates) >= 100 else 2  # a CPU makes a few
    return f"{median(rates):.{digits}f} ({min(rates):.{digits}f}-{max(rates):.{digits}f})"


def loader_table(results: Results, sides: Sequence[int]) -> list[str]:
    """Lines of the table of loaders alone, to main memory."""
    rows = [
        [CONTENDERS[key].title, *(_range(results.loaders.get(side, {}).get(key, [])) for side in sides)]
        for key in LOADERS
    ]
    return table(["loader", *(f"{side} px" for side in sides)], rows)


def ablation_table(results: Results, on_gpu: bool) -> list[str]:
    """Lines of the table of what each technique brings."""
    rows = []
    for name in ABLATIONS if on_gpu else CPU_ABLATIONS:
        rates = results.ablation.get(name)
        rows.append([name, *([NOT_MEASURED] * 2 if rates is None else map(_range, rates))])
        ratio = median(rates[1]) / median(rates[0]) if rates else 0.0
        rows[-1].append(_show(100 * (ratio - 1), 1, " %") if ratio else NOT_MEASURED)
    return table(["exchanged", "the step, img/s", "exchanged, img/s", "difference"], rows)


def projected_minutes(config: TrainConfig, rates: dict[int, float], evaluation_rate: float, gpus: int) -> float:
    """Of a whole training on ImageNet; 0 where a rate is missing.

    Args:
        config: the recipe.
        rates: images/s of one GPU while it trains, by image side.
        evaluation_rate: images/s of one GPU while it evaluates.
        gpus: as if so many were so many times as fast.
    """
    resolution, batch = config.make_resolution(), config.training.batch_size
    sides = [resolution(epoch) for epoch in range(config.training.epochs)]
    if not evaluation_rate or not all(rates.get(side) for side in sides):
        return 0.0
    images = TRAIN_IMAGES // batch * batch
    seconds = sum(images / rates[side] + VAL_IMAGES / evaluation_rate for side in sides)
    return seconds / gpus / 60


def projection_table(results: Results) -> list[str]:
    """Lines of the table of projections, from rates end to end where there are any, else from the ceiling."""
    rows = []
    for recipe, published in PUBLISHED.items():
        values = read_yaml(RECIPES / f"{recipe}.yaml") | {"data.train": "train.beton", "data.val": "val.beton"}
        config = build(TrainConfig, values)
        cells = {side: cell for (arch, side), cell in results.cells.items() if arch == config.model.arch}
        evaluation = median(results.evaluation.get(config.model.arch, []))
        for source, rates in projection_rates(cells):
            minutes = [projected_minutes(config, rates, evaluation, gpus) for gpus in (1, 8)]
            rows.append([recipe, source, *(_show(m, 1) for m in minutes), published])
    return table(["recipe", "projected from", "1 GPU, minutes", "8 GPUs, minutes", "published"], rows)


def projection_rates(cells: dict[int, Cell]) -> Iterator[tuple[str, dict[int, float]]]:
    """Names and rates by image side."""
    yield "the ceiling", {side: median(cell.ceiling) for side, cell in cells.items()}
    for decode in sorted({decode for cell in cells.values() for decode in cell.end_to_end}):
        yield f"end to end ({decode})", {side: median(cell.end_to_end.get(decode, [])) for side, cell in cells.items()}


def report(results: Results, arguments: argparse.Namespace, seconds: float) -> str:
    """All tables."""
    on_gpu = arguments.device.type == "cuda"
    environment = describe_environment(arguments.device)
    hardware, versions, git = environment["hardware"], environment["versions"], environment["git"]
    commit = f", commit {git['commit'][:10]}{' with changes' * git['changed']}" if git else ""
    arch, side = arguments.archs[0], arguments.sides[0]
    lines = [
        f"- {hardware['device']}, {hardware['cpu_cores']} CPU cores, {arguments.workers} decoding threads",
        f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC{commit}, torch {versions['torch']}; {seconds / 60:.1f} minutes",
        f"- `python {shlex.join(sys.argv)}`",
        f"- medians (min-max) of {arguments.rounds} rounds of {arguments.steps} steps, interleaved",
        f"- measured bf16 matmul rate, TFLOP/s: {_show(results.matmul_flops / 1e12)}; copying in the device's memory, "
        f"TB/s read and written: {_show(results.copy_bytes / 1e12, 2)}",
    ]
    if not on_gpu:
        lines.append("- **No GPU**: these figures only show that the benchmark runs; nothing about a GPU is measured.")
    lines += ["", "### The step", "", *step_table(results, on_gpu)]
    cells = [(arch, side) for arch in arguments.archs for side in arguments.sides]
    lines += ["", "### The limit: forward and backward in bf16, counted", "", *limit_table(results, cells)]
    lines += ["", "### Loaders alone, img/s into main memory", "", *loader_table(results, arguments.sides)]
    lines += [
        "",
        f"Reference end to end, {arch} at {side} px, stock FFCV: {_range(results.reference_end_to_end)} img/s",
    ]
    lines += ["", f"### What each technique brings: {arch} at {side} px", "", *ablation_table(results, on_gpu)]
    lines += ["", "### Projection (not a measurement): minutes for ImageNet, evaluation included", ""]
    lines += projection_table(results)
    for arch in arguments.archs:
        lines += [
            "",
            f"Evaluation at 256 px with mirror images, {arch}: {_range(results.evaluation.get(arch, []))} img/s",
        ]
    if results.left_out:
        lines += ["", f"Left out, the time was over: {', '.join(results.left_out)}"]
    lines += [f"\nFailed: {failure}" for failure in results.failed]
    return "\n".join(lines) + "\n"
