"""How a network does on corrupted images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ffcv_imagenet.analysis.measurement import DataSets, Measured, Measurement, Row
from ffcv_imagenet.analysis.scores import best_temperature, predictions, summarise
from ffcv_imagenet.data.format.manifest import file_checksum
from ffcv_imagenet.files import read_json_object
from ffcv_imagenet.options import Choice, Integer, OrNone, Text, option

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ffcv_imagenet.analysis.corrupt import Severities
    from ffcv_imagenet.analysis.outputs import ImageReader, Images
    from ffcv_imagenet.analysis.subject import Subject

_METRICS = ("error", "nll", "ece", "brier", "nll_scaled", "ece_scaled")


@dataclass(frozen=True)
class Corruptions(Measurement):
    """Error, NLL, ECE and Brier score on corrupted images, per corruption and severity, and their means.

    With ``published``, corrupted images are read: CIFAR-10-C's files NAME.npy and labels.npy, ImageNet-C's folders
    NAME/1 to NAME/5, or such .beton files. Without, the images of --data are corrupted anew with CIFAR-10-C's
    severities (at 32 x 32 pixels) or ImageNet-C's (at 224 x 224), and the results are called regenerated. The ECE is
    over the whole set; "scaled" are NLL and ECE with the temperature of the least NLL on half of the clean images. The
    mean is over the corruptions that are there of the 15 that both published sets have; regenerated they are 14, and
    the 15th with ``frost``, a folder of photographs of ice.
    """

    in_all: ClassVar[bool] = True
    on_every_rank: ClassVar[bool] = True
    version: ClassVar[int] = 2

    published: str | None = option(
        OrNone(Text()), "folder of corrupted images: NAME.npy, NAME/SEVERITY/CLASS/IMAGE, NAME/SEVERITY.beton", None
    )
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
        if self.published is not None and (self.severities != "auto" or self.frost is not None):
            return "corruptions.published is given: corruptions.severities and .frost are for regenerated images"
        return None

    def unfit(self, subject: Subject, sets: DataSets) -> str | None:
        """See :class:`Measurement`."""
        from ffcv_imagenet.analysis.corrupt import SEVERITIES

        side = subject.config.validation.resolution
        if self.published is not None:
            from ffcv_imagenet.analysis.corrupted_sets import ARRAY_SIDE, is_array

            if side != ARRAY_SIDE and any(is_array(Path(self.published), name) for name in self._chosen()):
                return f"the published arrays are images of 32 x 32 pixels, validation.resolution is {side}"
        elif self._severities(side) is None:
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
        if self.published is not None:
            from ffcv_imagenet.analysis.corrupted_sets import checksums

            found["published"] = checksums(Path(self.published), self._chosen())
        if self.frost is not None:
            from ffcv_imagenet.analysis.corrupt import picture_files

            found["frost"] = {file.name: file_checksum(file) for file in picture_files(Path(self.frost))}
        if self.baseline is not None:
            found["baseline"] = file_checksum(_baseline_file(self.baseline))
        return found

    def _chosen(self) -> list[str]:
        """Names of the corruptions; raises ValueError on an unknown one, FileNotFoundError on a missing file."""
        if self.published is None:
            from ffcv_imagenet.analysis.corrupt import CORRUPTIONS

            there = [name for name in CORRUPTIONS if name != "frost" or self.frost is not None]
        else:
            from ffcv_imagenet.analysis.corrupted_sets import list_names

            there = list_names(Path(self.published))
        names = there if self.names == "all" else self.names.split(",")
        if "frost" in names and "frost" not in there and self.published is None:
            raise ValueError("corruptions.names: frost needs photographs of ice: give --corruptions.frost=FOLDER")
        if unknown := [name for name in names if name not in there]:
            raise ValueError(f"corruptions.names: got {unknown[0]!r}, allowed is {', '.join(there)}")
        return names

    def measure(self, subject: Subject, sets: DataSets, kept: Mapping[Any, Any]) -> dict[str, Any]:
        """See :class:`Measurement`."""
        from ffcv_imagenet.analysis.corrupt import IN_THE_MEAN, LEVELS, corrupt, read_pictures
        from ffcv_imagenet.analysis.corrupted_sets import read_corrupted
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
                if self.published is not None:
                    batches = read_corrupted(subject, Path(self.published), name, severity, sets.val.manifest.classes)
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
            "origin": _origin(severities, side) if self.published is None and severities else "published images",
            "temperature": temperature,
            "table": table,
            "corruptions_in_the_mean": len({line["corruption"] for line in counted}),
            "summary": {"clean error": table[0]["error"], **means},
        }
        if self.published is None and self.names == "all" and self.frost is None:
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


def _origin(severities: Severities, side: int) -> str:
    """What regenerated images are called."""
    origin = f"regenerated with {severities.name}'s severities"
    if side != severities.side:
        made_for = f"{severities.side} x {severities.side}"
        origin += f" at {side} x {side} pixels, for which they are not made ({made_for})"
    return origin


def _corrupted(subject: Subject, clean: ImageReader, how: Callable[[np.ndarray, int], np.ndarray]) -> Iterator[Images]:
    """This rank's part of the clean images, each of them corrupted."""
    import torch

    from ffcv_imagenet.analysis.outputs import Images

    with ThreadPoolExecutor(clean.cores) as pool:
        for numbers, images, labels in clean:
            if images.is_floating_point():
                raise ValueError("corruptions: images have to be decoded on the CPU: --data.decode=cpu")
            found = np.stack(list(pool.map(how, images.permute(0, 2, 3, 1).cpu().numpy(), numbers.tolist())))
            yield Images(numbers, torch.from_numpy(found).permute(0, 3, 1, 2).to(subject.world.device), labels)
