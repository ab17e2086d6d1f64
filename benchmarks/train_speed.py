"""How fast is a training step, and what is it made of? README.md says how it is measured.

The tables are those of docs/performance.md. On a CPU the benchmark runs small, to show that it works.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
from contenders import CONTENDERS, RATIO, SCALE, DataSet, Settings
from loader import measure_speed, table
from steps import ABLATIONS, CLASSES, ProjectStep, ReferenceStep, Variant
from torch.utils.flop_counter import FlopCounterMode

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.distributed import World
from ffcv_imagenet.experiment import make_train_loader
from ffcv_imagenet.models import build_model
from ffcv_imagenet.options import build, read_yaml
from ffcv_imagenet.runlog import describe_environment

NOT_MEASURED = "not measured"
PARTS = ("step", "end-to-end", "loaders", "reference-end-to-end", "ablation")
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
WORKDIR = Path(tempfile.gettempdir()) / "ffcv_imagenet_benchmark"


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
    left_out: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


class Budget:
    """Begins nothing that would probably not be over in time: each kind takes as long as its longest one so far.

    The first of a kind is taken for as long as the longest of all. What fails is noted, and does not take what has been
    measured with it.

    Args:
        end: when the time is over, on the monotonic clock.
        results: where is noted what fails and what is left out.
        save: called when something has been measured: who is killed later shall have it.
    """

    def __init__(self, end: float, results: Results, save: Callable[[], None] = lambda: None):
        self.end, self.results, self.save = end, results, save
        self._longest: dict[str, float] = {}

    def run(self, kind: str, name: str, work: Callable[[], None]) -> None:
        start = time.monotonic()
        if start + self._longest.get(kind, max(self._longest.values(), default=0.0)) > self.end:
            self.results.left_out.append(f"{kind} {name}")
            return
        print(f"{kind} {name}", file=sys.stderr, flush=True)
        with self.noting(f"{kind} {name}"):
            work()
        self._longest[kind] = max(self._longest.get(kind, 0.0), time.monotonic() - start)
        self.save()

    @contextlib.contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """Note what fails in a ``with`` block, and go on behind it."""
        try:
            yield
        except (Exception, SystemExit) as error:
            self.results.failed.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")


class Benchmark:
    """Measures on one device; see :func:`_parse` for ``arguments``. ``begin`` is when the program was started."""

    def __init__(self, arguments: argparse.Namespace, data: DataSet | None, begin: float):
        self.arguments, self.data, self.begin = arguments, data, begin
        self.device = arguments.device
        self.results = Results()
        self.budget = Budget(begin + 60 * arguments.minutes, self.results, self.save)

    def run(self) -> Results:
        """Measure the parts in the order of their importance; the tables are saved after each measurement."""
        parts, cells = self.arguments.parts, [(a, s) for a in self.arguments.archs for s in self.arguments.sides]
        if self.device.type == "cuda":
            self.results.matmul_flops = matmul_rate(self.device)
        if "step" in parts:
            for arch in self.arguments.archs:
                self._measure_arch(arch)
                self._forget()
        if "loaders" in parts and self.data:
            for side in self.arguments.sides:
                self.budget.run("loaders", f"{side} px", lambda side=side: self._measure_loaders(side))
        arch, side = cells[0]
        if "reference-end-to-end" in parts and self.data:
            self.budget.run("reference", "end to end", lambda: self._measure_reference_end_to_end(arch, side))
            self._forget()
        if "ablation" in parts:
            for name, variant in ABLATIONS.items():
                if self.device.type == "cpu" and variant.needs_gpu:
                    continue
                self.budget.run("ablation", name, lambda n=name, v=variant: self._measure_ablation(n, v, arch, side))
                self._forget()
        return self.results

    def save(self) -> str:
        """All tables of what there is so far, also written to a file where one is given."""
        text = report(self.results, self.arguments, time.monotonic() - self.begin)
        if self.arguments.markdown:
            self.arguments.markdown.write_text(text)
        return text

    def _batch(self, arch: str) -> int:
        """Images per step: those of the published recipes on one GPU."""
        return self.arguments.batch or (1024 if arch == "resnet18" else 512)

    def _project(self, arch: str, variant: Variant) -> ProjectStep:
        steps = self.arguments.steps
        return ProjectStep(arch, variant, batch_size=self._batch(arch), steps=steps, device=self.device)

    def _measure_arch(self, arch: str) -> None:
        ours = self._project(arch, Variant())
        reference = ReferenceStep(arch, batch_size=self._batch(arch), steps=self.arguments.steps, device=self.device)
        for side in self.arguments.sides:
            self.budget.run(
                "step", f"{arch} {side} px", lambda side=side: self._measure_cell(arch, side, ours, reference)
            )
            if self.device.type == "cuda" and arch not in self.results.evaluation:
                self.budget.run("evaluation", arch, lambda: self._measure_evaluation(arch, ours))

    def _measure_cell(self, arch: str, side: int, ours: ProjectStep, reference: ReferenceStep) -> None:
        cell = Cell()
        cell.compile_seconds = ours.prepare(side)
        ours.train()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            ours.train()
            cell.peak_bytes = torch.cuda.max_memory_allocated(self.device)
        runs: dict[str, Callable[[], int]] = {"ceiling": ours.train, "reference": lambda: reference.train(side)}
        reference.train(side)
        if "end-to-end" in self.arguments.parts and self.data:
            for decode in ("cpu", "gpu") if self.device.type == "cuda" else ("cpu",):
                with self.budget.noting(f"end to end ({decode}) {arch} {side} px"):
                    loader = self._loader(decode, arch, side)
                    ours.train(loader)
                    runs[decode] = lambda loader=loader: ours.train(loader)
        rates = self._rates(runs)
        cell.ceiling, cell.reference = rates.pop("ceiling"), rates.pop("reference")
        cell.end_to_end = rates
        self.results.cells[arch, side] = cell

    def _measure_evaluation(self, arch: str, ours: ProjectStep) -> None:
        ours.evaluate()
        self.results.evaluation[arch] = self._rates({"evaluation": ours.evaluate})["evaluation"]

    def _measure_loaders(self, side: int) -> None:
        assert self.data is not None
        settings = Settings(side, min(256, self.data.num_samples), self.arguments.workers)
        self.results.loaders[side] = measure_speed(LOADERS, self.data, settings, self.arguments.rounds)

    def _measure_reference_end_to_end(self, arch: str, side: int) -> None:
        reference = ReferenceStep(arch, batch_size=self._batch(arch), steps=1, device=self.device)
        batches = self._stock_ffcv(self._batch(arch), side)
        reference.train(side, batches)
        run = {"reference": lambda: reference.train(side, batches)}
        self.results.reference_end_to_end = self._rates(run)["reference"]

    def _measure_ablation(self, name: str, variant: Variant, arch: str, side: int) -> None:
        steps = {"all": self._project(arch, Variant()), name: self._project(arch, variant)}
        for step in steps.values():
            step.prepare(side)
            step.train()
        rates = self._rates({title: step.train for title, step in steps.items()})
        self.results.ablation[name] = (rates["all"], rates[name])

    def _rates(self, runs: dict[str, Callable[[], int]]) -> dict[str, list[float]]:
        """Images/s of every run in every round; a round is each of them once."""
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(self.arguments.rounds):
            for name, run in runs.items():
                rates[name].append(images_per_second(run, self.device))
        return rates

    def _loader(self, decode: str, arch: str, side: int):
        assert self.data is not None
        values = {
            "data.train": self.data.indexed_beton,
            "data.val": self.data.indexed_beton,
            "data.decode": decode,
            "data.num_workers": self.arguments.workers,
            "training.batch_size": self._batch(arch),
            "resolution.min_res": side,
            "resolution.max_res": side,
        }
        config = build(TrainConfig, {key: str(value) for key, value in values.items()})
        return make_train_loader(config, World(0, 1, 0, 1, self.device))

    def _stock_ffcv(self, batch_size: int, side: int):
        """FFCV's own loader, with the copies to the device that it makes itself."""
        from ffcv.fields.basics import IntDecoder
        from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.transforms import RandomHorizontalFlip, ToDevice, ToTensor, ToTorchImage

        assert self.data is not None
        decoder = RandomResizedCropRGBImageDecoder((side, side), scale=SCALE, ratio=RATIO)
        to_device = [ToTensor(), ToDevice(self.device, non_blocking=True)]
        return Loader(
            str(self.data.beton),
            batch_size=batch_size,
            num_workers=self.arguments.workers,
            order=OrderOption.RANDOM,
            drop_last=True,
            pipelines={
                "image": [decoder, RandomHorizontalFlip(), *to_device, ToTorchImage()],
                "label": [IntDecoder(), *to_device],
            },
        )

    def _forget(self) -> None:
        """Free what a model has occupied, its compiled code included."""
        torch._dynamo.reset()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def images_per_second(run: Callable[[], int], device: torch.device) -> float:
    """Of one run, which returns its number of images; on a GPU by events on the stream."""
    if device.type == "cpu":
        begin = time.perf_counter()
        return run() / (time.perf_counter() - begin)
    torch.cuda.synchronize(device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    images = run()
    end.record()
    end.synchronize()
    return 1000 * images / start.elapsed_time(end)


def matmul_rate(device: torch.device, size: int = 8192, times: int = 20) -> float:
    """FLOP/s of bf16 matrix products, the median of 5 rounds after one: what the card can do at best."""
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))

    def multiply() -> int:
        for _ in range(times):
            torch.mm(left, right)
        return 2 * size**3 * times

    multiply()
    return statistics.median(images_per_second(multiply, device) for _ in range(5))


@functools.cache
def flops_per_image(arch: str, side: int) -> float:
    """Of forward and backward, a multiplication and its addition counted as two; counted without computing."""
    with torch.device("meta"):
        model = build_model(arch, CLASSES, blurpool=True)
        counter = FlopCounterMode(display=False)
        with counter:
            model(torch.empty(2, 3, side, side)).sum().backward()
    return counter.get_total_flops() / 2


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
    head = ["model, px", "ceiling, img/s", "reference, img/s", "ratio", "TFLOP/s", "of the matmul rate", "peak GiB"]
    head += ["compiled in s", *(f"end to end ({d}), img/s | without data" for d in decodes)]
    head = [column for name in head for column in name.split(" | ")]
    rows = []
    for (arch, side), cell in results.cells.items():
        rate, reference = median(cell.ceiling), median(cell.reference)
        flops = rate * flops_per_image(arch, side) if on_gpu else 0.0
        judged = on_gpu and arch == "resnet50" and side in TARGET_SIDES
        ratio = _show(rate / reference, 2)
        row = [
            f"{arch}, {side}",
            _range(cell.ceiling),
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


def ablation_table(results: Results) -> list[str]:
    """Lines of the table of what each technique brings."""
    rows = []
    for name in ABLATIONS:
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
        f"- measured bf16 matmul rate, TFLOP/s: {_show(results.matmul_flops / 1e12)}",
    ]
    if not on_gpu:
        lines.append("- **No GPU**: these figures only show that the benchmark runs; nothing about a GPU is measured.")
    lines += ["", "### The step", "", *step_table(results, on_gpu)]
    lines += ["", "### Loaders alone, img/s into main memory", "", *loader_table(results, arguments.sides)]
    lines += [
        "",
        f"Reference end to end, {arch} at {side} px, stock FFCV: {_range(results.reference_end_to_end)} img/s",
    ]
    lines += ["", f"### What each technique brings: {arch} at {side} px", "", *ablation_table(results)]
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


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    def words(text: str) -> list[str]:
        return text.split(",")

    def numbers(text: str) -> list[int]:
        return [int(number) for number in text.split(",")]

    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--images", type=Path, help="image folder, FOLDER/<class>/<image>; without it, no loaders")
    parser.add_argument("--workdir", type=Path, default=WORKDIR, help="where the data is prepared, once")
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda", 0) if on_gpu else "cpu")
    parser.add_argument("--parts", type=words, default=list(PARTS), help="what to measure")
    parser.add_argument("--archs", type=words, default=["resnet50", "resnet18"] if on_gpu else ["resnet18"])
    parser.add_argument("--sides", type=numbers, default=[160, 192, 224, 128] if on_gpu else [64], help="pixels")
    parser.add_argument("--batch", type=int, default=0 if on_gpu else 8, help="images per step; 0: 512, ResNet-18 1024")
    parser.add_argument("--steps", type=int, default=10 if on_gpu else 2, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=5 if on_gpu else 2, help="rounds that are measured")
    parser.add_argument("--epoch-images", type=int, default=16384 if on_gpu else 32, help="of a round end to end")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="decoding threads")
    parser.add_argument("--minutes", type=float, default=8.5, help="begin nothing after these")
    parser.add_argument("--markdown", type=Path, help="file for the tables, which are always printed")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"--parts: got {', '.join(sorted(unknown))}, allowed are {', '.join(PARTS)}")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the data, measure, print the tables."""
    begin = time.monotonic()
    arguments = _parse(argv)
    data = None
    if arguments.images is not None:
        from prepare import prepare

        arguments.workdir.mkdir(parents=True, exist_ok=True)
        data = prepare(arguments.images, arguments.workdir, arguments.epoch_images)
    torch.set_float32_matmul_precision("high")  # as in a training
    torch.backends.cudnn.allow_tf32 = True
    benchmark = Benchmark(arguments, data, begin)
    results = benchmark.run()
    print(benchmark.save(), end="")
    sys.exit(1 if results.failed else 0)


if __name__ == "__main__":
    main()
