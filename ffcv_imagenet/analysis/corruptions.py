"""How a network does on corrupted images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ffcv_imagenet.analysis.measurement import DataSets, Measured, Measurement, Row
from ffcv_imagenet.analysis.scores import best_temperature, predictions, summarise
from ffcv_imagenet.files import read_json_object
from ffcv_imagenet.options import Choice, Integer, OrNone, Text, option

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from ffcv_imagenet.analysis.corrupt import Severities
    from ffcv_imagenet.analysis.outputs import ImageReader, Images
    from ffcv_imagenet.analysis.subject import Subject

_METRICS = ("error", "nll", "ece", "brier", "nll_scaled", "ece_scaled")


@dataclass(frozen=True)
class Corruptions(Measurement):
    """Error, NLL, ECE and Brier score on corrupted images, per corruption and severity, and their means.

    With ``arrays``, the published CIFAR-10-C files NAME.npy and labels.npy are read; without, the images of --data are
    corrupted anew with CIFAR-10-C's severities (at 32 x 32 pixels) or ImageNet-C's (at 224 x 224), and the results are
    called regenerated. The ECE is over the whole set; "scaled" are NLL and ECE with the temperature of the least NLL on
    half of the clean images. The mean is over the corruptions that are there of the 15 that both published sets have;
    regenerated they are 14, and the 15th with ``frost``, a folder of photographs of ice.
    """

    in_all: ClassVar[bool] = True
    on_every_rank: ClassVar[bool] = True
    version: ClassVar[int] = 2

    arrays: str | None = option(OrNone(Text()), "folder of the published files", None)
    severities: str = option(
        Choice("auto", "cifar", "imagenet"), "of regenerated images; auto: those made for images of this size", "auto"
    )
    frost: str | None = option(OrNone(Text()), "folder of photographs of ice for the corruption frost", None)
    names: str = option(Text(), "which ones, separated by commas", "all")
    bins: int = option(Integer(1, 1000), "bins of the ECE", 15)
    seed: int = option(Integer(0), "seed of what is drawn", 0)
    baseline: str | None = option(OrNone(Text()), "run folder with results that mCE divides by", None)

    def missing(self, sets: DataSets) -> str | None:
        """See :class:`Measurement`."""
        if self.arrays is not None and (self.severities != "auto" or self.frost is not None):
            return (
                "corruptions.arrays is given: corruptions.severities and corruptions.frost are for regenerated images"
            )
        return None

    def unfit(self, subject: Subject, sets: DataSets) -> str | None:
        """See :class:`Measurement`."""
        from ffcv_imagenet.analysis.corrupt import SEVERITIES

        side = subject.config.validation.resolution
        if self.arrays is not None and side != SEVERITIES["cifar"].side:
            return f"the published arrays are images of 32 x 32 pixels, validation.resolution is {side}"
        if self.arrays is None and self._severities(side) is None:
            made_for = " and ".join(f"{one.side} x {one.side}" for one in SEVERITIES.values())
            return (
                f"severities are made for {made_for} pixels, validation.resolution is {side}: choose by "
                f"--corruptions.severities={'|'.join(SEVERITIES)}, or give another --validation.resolution"
            )
        if sets.val.manifest.num_classes != subject.num_classes:
            return (
                f"{subject.source} has {subject.num_classes} classes, {sets.val.path} {sets.val.manifest.num_classes}"
            )
        return None

    def _severities(self, side: int) -> Severities | None:
        """Those chosen, or made for images of this side; None where there are none."""
        from ffcv_imagenet.analysis.corrupt import SEVERITIES

        if self.severities != "auto":
            return SEVERITIES[self.severities]
        return next((one for one in SEVERITIES.values() if one.side == side), None)

    def extra_inputs(self) -> dict[str, Any]:
        """See :class:`Measurement`."""
        found: dict[str, Any] = {}
        if self.arrays is not None:
            files = [Path(self.arrays, f"{name}.npy") for name in ("labels", *self._chosen())]
            found["arrays"] = {file.name: _file_checksum(file) for file in files}
        if self.frost is not None:
            from ffcv_imagenet.analysis.corrupt import picture_files

            found["frost"] = {file.name: _file_checksum(file) for file in picture_files(Path(self.frost))}
        if self.baseline is not None:
            found["baseline"] = _file_checksum(_baseline_file(self.baseline))
        return found

    def _chosen(self) -> list[str]:
        """Names of the corruptions; raises ValueError on an unknown one, FileNotFoundError on a missing file."""
        if self.arrays is None:
            from ffcv_imagenet.analysis.corrupt import CORRUPTIONS

            there = [name for name in CORRUPTIONS if name != "frost" or self.frost is not None]
        else:
            there = sorted(file.stem for file in Path(self.arrays).glob("*.npy") if file.stem != "labels")
            if not there:
                raise FileNotFoundError(f"no NAME.npy in {self.arrays}")
        names = there if self.names == "all" else self.names.split(",")
        if "frost" in names and "frost" not in there and self.arrays is None:
            raise ValueError("corruptions.names: frost needs photographs of ice: give --corruptions.frost=FOLDER")
        if unknown := [name for name in names if name not in there]:
            raise ValueError(f"corruptions.names: got {unknown[0]!r}, allowed is {', '.join(there)}")
        return names

    def measure(self, subject: Subject, sets: DataSets, kept: Mapping[Any, Any]) -> dict[str, Any]:
        """See :class:`Measurement`."""
        from ffcv_imagenet.analysis.corrupt import IN_THE_MEAN, LEVELS, corrupt, read_pictures
        from ffcv_imagenet.analysis.outputs import ImageReader, KeptRows, Rows, collect

        clean, side = ImageReader(subject, sets.val.path), subject.config.validation.resolution
        severities = self._severities(side)
        names = self._chosen()
        pictures: list[np.ndarray] = []
        if "frost" in names and self.frost is not None:
            assert severities is not None
            pictures = read_pictures(Path(self.frost), severities, side)

        def logits(batches: Iterable[Images], what: str) -> Rows:
            rows = KeptRows("logits")
            collect(subject, batches, {None: rows}, total=sets.val.manifest.num_samples, what=what)  # type: ignore[dict-item]
            return rows.rows

        rows = logits(clean, "clean")
        temperature = best_temperature(rows.values[::2], rows.labels[::2])
        table = [self._line("clean", 0, rows.values, rows.labels, temperature)]
        for name in names:
            for severity in range(1, LEVELS + 1):
                if self.arrays is not None:
                    batches = _published(subject, Path(self.arrays), name, severity)
                else:
                    assert severities is not None
                    how = partial(
                        corrupt, name=name, severity=severity, seed=self.seed, severities=severities, pictures=pictures
                    )
                    batches = _corrupted(subject, clean, how)
                rows = logits(batches, f"{name} {severity}")
                table.append(self._line(name, severity, rows.values, rows.labels, temperature))
        counted = [line for line in table if line["corruption"] in IN_THE_MEAN]
        means = {f"mean {name}": float(np.mean([line[name] for line in counted])) for name in _METRICS if counted}
        results: dict[str, Any] = {
            "origin": "published arrays" if severities is None or self.arrays else _origin(severities, side),
            "temperature": temperature,
            "table": table,
            "corruptions_in_the_mean": len({line["corruption"] for line in counted}),
            "summary": {"clean error": table[0]["error"], **means},
        }
        if self.arrays is None and self.names == "all" and self.frost is None:
            results["notes"] = [
                "frost is left out of the 15 corruptions: it needs photographs of ice (--corruptions.frost=FOLDER)"
            ]
        if self.baseline is not None and counted:
            results["summary"]["mce"] = mean_corruption_error(counted, _baseline_table(self.baseline))
        return results

    def _line(
        self, name: str, severity: int, logits: np.ndarray, labels: np.ndarray, temperature: float
    ) -> dict[str, Any]:
        plain, scaled = (summarise(predictions(logits, labels, t), self.bins) for t in (1.0, temperature))
        return {
            "corruption": name,
            "severity": severity,
            "error": 1 - plain["accuracy"],
            **{key: plain[key] for key in ("nll", "ece", "brier")},
            "nll_scaled": scaled["nll"],
            "ece_scaled": scaled["ece"],
        }

    def rows(self, results: dict[str, Any]) -> list[Row]:
        """See :class:`Measurement`."""
        return results["table"]

    def draw(self, figure: Figure, measured: Sequence[Measured]) -> None:
        """See :class:`Measurement`."""
        figure.set_size_inches(14, 4)
        for panel, metric in zip(figure.subplots(1, 4), ("error", "nll", "ece", "brier"), strict=True):
            for one in measured:
                of_severity: dict[int, list[float]] = {}
                for line in one.results["table"]:
                    of_severity.setdefault(line["severity"], []).append(line[metric])
                panel.plot(
                    list(of_severity), [np.mean(values) for values in of_severity.values()], "o-", label=one.name
                )
            panel.set(xlabel="severity (0: clean), mean over corruptions", ylabel=metric)
        panel.legend()


def mean_corruption_error(table: Sequence[Mapping[str, Any]], baseline: Sequence[Mapping[str, Any]]) -> float:
    """mCE: the mean over corruptions of the errors' sum over severities, divided by the baseline's (1: as good).

    Raises:
        ValueError: the baseline lacks a corruption.
    """
    ratios = []
    for name in dict.fromkeys(line["corruption"] for line in table):
        own, other = (sum(line["error"] for line in lines if line["corruption"] == name) for lines in (table, baseline))
        if not other:
            raise ValueError(f"corruptions.baseline: its results have no error for {name}")
        ratios.append(own / other)
    return float(np.mean(ratios))


def _baseline_file(run: str) -> Path:
    file = Path(run) / "analysis" / "corruptions.json"
    if not file.is_file():
        raise FileNotFoundError(f"corruptions.baseline: {file} is not there: measure that run first")
    return file


def _baseline_table(run: str) -> list[dict[str, Any]]:
    return read_json_object(_baseline_file(run))["results"]["table"]


def _file_checksum(file: Path) -> str:
    if not file.is_file():
        raise FileNotFoundError(f"file not found: {file}")
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _origin(severities: Severities, side: int) -> str:
    """What regenerated images are called."""
    origin = f"regenerated with {severities.name}'s severities"
    if side != severities.side:
        made_for = f"{severities.side} x {severities.side}"
        origin += f" at {side} x {side} pixels, for which they are not made ({made_for})"
    return origin


def _on(subject: Subject, batches: Iterable[tuple[np.ndarray, Tensor, Tensor]]) -> Iterator[Images]:
    from ffcv_imagenet.analysis.outputs import Images

    device = subject.world.device
    for numbers, images, labels in batches:
        yield Images(numbers, images.to(device), labels.to(device))


def _corrupted(subject: Subject, clean: ImageReader, how: Callable[[np.ndarray, int], np.ndarray]) -> Iterator[Images]:
    """This rank's part of the clean images, each of them corrupted."""
    import torch

    with ThreadPoolExecutor(clean.cores) as pool:
        for numbers, images, labels in clean:
            if images.is_floating_point():
                raise ValueError("corruptions: images have to be decoded on the CPU: --data.decode=cpu")
            found = np.stack(list(pool.map(how, images.permute(0, 2, 3, 1).cpu().numpy(), numbers.tolist())))
            yield from _on(subject, [(numbers, torch.from_numpy(found).permute(0, 3, 1, 2), labels)])


def _published(subject: Subject, folder: Path, name: str, severity: int) -> Iterator[Images]:
    """This rank's part of one severity of a published file.

    Raises:
        ValueError: it has another shape or type than 5 severities of uint8 [N, 32, 32, 3], or labels that do not fit.
    """
    import torch

    from ffcv_imagenet.analysis.corrupt import LEVELS, SEVERITIES
    from ffcv_imagenet.data.read.orders import ShardedOrder

    side, batch = SEVERITIES["cifar"].side, subject.config.validation.batch_size
    arrays = [np.load(folder / f"{file}.npy", mmap_mode="r", allow_pickle=False) for file in (name, "labels")]
    images, labels = arrays
    if images.dtype != np.uint8 or images.shape[1:] != (side, side, 3) or len(images) % LEVELS:
        raise ValueError(f"{folder / name}.npy: got {images.dtype} {images.shape}, allowed is uint8 [5 N, 32, 32, 3]")
    count = len(images) // LEVELS
    if labels.shape not in ((count,), (len(images),)) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{folder / 'labels.npy'}: got {labels.dtype} {labels.shape}, allowed are {len(images)} labels"
        )
    if labels.min() < 0 or labels.max() >= subject.num_classes:
        raise ValueError(f"{folder / 'labels.npy'}: allowed are labels from 0 to {subject.num_classes - 1}")
    own = ShardedOrder(count, subject.world.rank, subject.world.size).sample_order(0)
    for first in range(0, len(own), batch):
        numbers = own[first : first + batch]
        rows = slice((severity - 1) * count + int(numbers[0]), (severity - 1) * count + int(numbers[-1]) + 1)
        pixels = torch.from_numpy(np.array(images[rows])).permute(0, 3, 1, 2)
        target = np.array(labels[rows] if len(labels) == len(images) else labels[numbers]).astype(np.int64)
        yield from _on(subject, [(numbers, pixels, torch.from_numpy(target))])
