"""Whether predicted probabilities are right as often as they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ffcv_imagenet.analysis.measurement import DataSets, Measured, Measurement, Need, Row
from ffcv_imagenet.analysis.panels import panel_for_each
from ffcv_imagenet.analysis.scores import best_temperature, equal_width_bins, predictions, summarise
from ffcv_imagenet.options import Integer, option

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ffcv_imagenet.analysis.subject import Subject


@dataclass(frozen=True)
class Calibration(Measurement):
    """Accuracy, NLL (plain cross entropy, nats), Brier score, ECE, adaptive ECE, MCE; before and after temperature.

    Bins of the confidence are (a, b], 0 lies in the first; the adaptive ECE has bins of equal numbers of images. The
    temperature of the least NLL is found on one half of the images, drawn by the seed, and applied to the other half
    (Guo et al., arXiv 1706.04599): "before" and "after" are of that other half, "all" is of all images without it.
    """

    bins: int = option(Integer(1, 1000), "bins of the confidence", 15)
    seed: int = option(Integer(0), "draws the half that decides the temperature", 0)

    def needs(self, sets: DataSets) -> list[Need]:
        """See :class:`Measurement`."""
        return [Need(sets.val.path, "logits")]

    def measure(self, subject: Subject, sets: DataSets, kept: Mapping[Need, Any]) -> dict[str, Any]:
        """See :class:`Measurement`."""
        rows = kept[self.needs(sets)[0]].rows
        return calibrate(rows.values, rows.labels, self.bins, self.seed)

    def rows(self, results: dict[str, Any]) -> list[Row]:
        """See :class:`Measurement`."""
        return [{"images": which, **results[which]} for which in ("all", "before", "after")]

    def draw(self, figure: Figure, measured: Sequence[Measured]) -> None:
        """See :class:`Measurement`."""
        panels = panel_for_each(figure, len(measured), 4)
        for panel, one in zip(panels, measured, strict=True):
            for which, colour in (("before", "#C64A00"), ("after", "#0072B2")):
                bins = one.results["bins"][which]
                there = [n for n, count in enumerate(bins["count"]) if count]
                panel.plot(
                    [bins["confidence"][n] for n in there],
                    [bins["accuracy"][n] for n in there],
                    "o-",
                    ms=4,
                    color=colour,
                    label=f"{which}: ECE {one.results[which]['ece']:.4f}",
                )
            panel.plot([0, 1], [0, 1], color="0.7", lw=1)
            panel.set(title=f"{one.name}, T = {one.results['temperature']:.3f}", xlabel="confidence")
            panel.legend()
        panels[0].set(ylabel="accuracy")


def halves(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The two halves of 0..count-1, drawn by the seed; the first is the smaller one of an odd number."""
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def calibrate(logits: np.ndarray, labels: np.ndarray, bins: int = 15, seed: int = 0) -> dict[str, Any]:
    """The results of :class:`Calibration` from ``logits [N, K]`` and ``labels [N]``; N >= 2."""
    if len(labels) < 2:
        raise ValueError("calibration needs two images or more")
    first, second = halves(len(labels), seed)
    temperature = best_temperature(logits[first], labels[first])
    found = {
        "all": predictions(logits, labels),
        "before": predictions(logits[second], labels[second]),
        "after": predictions(logits[second], labels[second], temperature),
    }
    results: dict[str, Any] = {which: summarise(one, bins) for which, one in found.items()}
    results["temperature"] = temperature
    results["bins"] = {}
    for which, one in found.items():
        wide = equal_width_bins(one.confidence, one.right, bins)
        columns = {"count": wide.count, "confidence": wide.confidence, "accuracy": wide.accuracy}
        results["bins"][which] = {
            name: [None if value != value else value for value in values.tolist()] for name, values in columns.items()
        }
    results["summary"] = {
        **results["all"],
        "temperature": temperature,
        "ece before": results["before"]["ece"],
        "ece after": results["after"]["ece"],
        "nll before": results["before"]["nll"],
        "nll after": results["after"]["nll"],
    }
    return results
