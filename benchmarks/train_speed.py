"""How fast is a training step, and what is it made of? README.md says how it is measured.

The tables are those of docs/performance.md. On a CPU the benchmark runs small, to show that it works.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from card import copy_rate, matmul_rate, per_second
from contenders import RATIO, SCALE, DataSet, Settings
from loader import measure_speed
from steps import ABLATIONS, CPU_ABLATIONS, ProjectStep, ReferenceStep, Variant
from train_speed_tables import LOADERS, Cell, Results, report

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.distributed import World
from ffcv_imagenet.loaders import make_train_loader
from ffcv_imagenet.options import build
from ffcv_imagenet.resolved import resolve

PARTS = ("step", "end-to-end", "loaders", "reference-end-to-end", "ablation")
WORKDIR = Path(tempfile.gettempdir()) / "ffcv_imagenet_benchmark"


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
            self.results.copy_bytes = copy_rate(self.device)
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
            for name, variant in (CPU_ABLATIONS if self.device.type == "cpu" else ABLATIONS).items():
                if self.arguments.ablations not in name:
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
                    ours.prepare(side, loader)  # the GPU's decoder makes other batches than those above
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
                rates[name].append(per_second(run, self.device))
        return rates

    def _loader(self, decode: str, arch: str, side: int):
        assert self.data is not None
        values = {
            "data.train": self.data.indexed_beton,
            "data.val": self.data.indexed_beton,
            "data.on_wrong_split": "warn",
            "data.decode": decode,
            "data.num_workers": self.arguments.workers,
            "training.batch_size": self._batch(arch),
            "resolution.min_res": side,
            "resolution.max_res": side,
        }
        config = build(TrainConfig, {key: str(value) for key, value in values.items()})
        return make_train_loader(resolve(config, World(0, 1, 0, 1, self.device)))

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
    parser.add_argument("--ablations", default="", metavar="WORDS", help="of the ablations, those with these words")
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
