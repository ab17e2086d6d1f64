"""The logits themselves: a file of them, and how large they are."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ffcv_imagenet.analysis.measurement import DataSets, Measured, Measurement, Need, Row
from ffcv_imagenet.analysis.scores import blocks, log_softmax
from ffcv_imagenet.files import atomic_file
from ffcv_imagenet.options import Integer, Real, Text, option

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ffcv_imagenet.analysis.subject import Subject

#: Name of the file with all logits.
LOGITS_FILE = "logits.npz"
_SHARES = np.linspace(0, 1, 51)
_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_MOST_BINS = 4000


@dataclass(frozen=True)
class Logits(Measurement):
    """One file of logits, labels and sample numbers, and statistics of the logits.

    An image's near-zero share at a threshold t is the share of its K logits with |z| < t. Softmax leaves a constant
    open that can be added to all logits of an image, so that the share is given of the centred ones (z - mean z), too.
    The same thresholds hold for every run.
    """

    thresholds: str = option(Text(), "thresholds of near-zero shares, the first is drawn", "0.01,0.001,0.1")
    bin_width: float = option(Real(1e-6, 1e3), "width of the bins of the density", 0.1)
    points: int = option(Integer(0, 100000), "images in the scatter plot, drawn by the seed", 2000)
    seed: int = option(Integer(0), "draws the images of the scatter plot", 0)

    def needs(self, sets: DataSets) -> list[Need]:
        """See :class:`Measurement`."""
        return [Need(sets.val.path, "logits")]

    def measure(self, subject: Subject, sets: DataSets, kept: Mapping[Need, Any]) -> dict[str, Any]:
        """See :class:`Measurement`."""
        rows = kept[self.needs(sets)[0]].rows
        subject.folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(subject.folder / LOGITS_FILE) as file:
            content = io.BytesIO()
            np.savez(
                content,
                logits=rows.values,
                labels=rows.labels,
                samples=rows.numbers,
                classes=np.array(sets.val.manifest.classes),
                run=np.array(subject.name),
                weights=np.array(subject.checksum),
                resolution=np.array(subject.config.validation.resolution),
            )
            file.write(content.getbuffer())
        results = logit_statistics(rows.values, rows.labels, parse_thresholds(self.thresholds), self.bin_width)
        chosen = np.random.default_rng(self.seed).permutation(len(rows.labels))[: self.points]
        share = near_zero_shares(rows.values[chosen], results["thresholds"][0])[0]
        top = np.exp(log_softmax(rows.values[chosen]).max(axis=1))
        return results | {"scatter": {"top_probability": top.tolist(), "share": share.tolist()}, "file": LOGITS_FILE}

    def rows(self, results: dict[str, Any]) -> list[Row]:
        """See :class:`Measurement`."""
        names = [f"quantile {q:g}" for q in results["quantiles"]["at"]]
        return [
            {"logit": name, "mean": results["means"][name], **dict(zip(names, values, strict=True))}
            for name, values in results["quantiles"].items()
            if name != "at"
        ]

    def draw(self, figure: Figure, measured: Sequence[Measured]) -> None:
        """See :class:`Measurement`."""
        histogram, scatter, density, centred = figure.subplots(1, 4)
        figure.set_size_inches(20, 5)
        threshold = measured[0].results["thresholds"][0]
        for number, one in enumerate(measured):
            colour, results = f"C{number}", one.results
            histogram.stairs(results["share_histogram"], _SHARES, color=colour, label=one.name)
            points = results["scatter"]
            scatter.plot(points["top_probability"], points["share"], ".", ms=2, alpha=0.6, color=colour)
            for panel, kind in ((density, "raw"), (centred, "centred")):
                bins = results["density"][kind]
                edges = (bins["first"] + np.arange(len(bins["counts"]) + 1)) * bins["width"]
                panel.stairs(np.array(bins["counts"]) / (sum(bins["counts"]) * bins["width"]), edges, color=colour)
        histogram.set(xlabel=f"share of logits with |z| < {threshold:g}", ylabel="images")
        scatter.set(xlabel="top probability", ylabel=f"share with |z| < {threshold:g}", xlim=(0, 1), ylim=(0, 1))
        density.set(xlabel="logit, all entries", ylabel="density")
        centred.set(xlabel="logit less the mean of its image")
        histogram.legend()


def parse_thresholds(text: str) -> list[float]:
    """Numbers > 0 from ``0.01,0.001``."""
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < value < float("inf") for value in found):
        raise ValueError(f"logits.thresholds: got {text!r}, allowed are numbers > 0, separated by commas")
    return found


def near_zero_shares(logits: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Per image, the share of logits with |z| < threshold, [N], float64: raw, and centred by the image's mean."""
    z = logits.astype(np.float64)
    return tuple((np.abs(v) < threshold).mean(axis=1) for v in (z, z - z.mean(axis=1, keepdims=True)))


def logit_statistics(
    logits: np.ndarray, labels: np.ndarray, thresholds: Sequence[float], bin_width: float
) -> dict[str, Any]:
    """Shares, quantiles and densities of ``logits [N, K]`` with ``labels [N]``.

    The margin is the target's logit less the largest other one. Densities are counts over all entries in bins
    [i w, (i + 1) w).
    """
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("top", "target", "mean", "margin")}
    shares: dict[str, list[np.ndarray]] = {f"{kind} {t:g}": [] for t in thresholds for kind in ("raw", "centred")}
    counts: dict[str, dict[int, int]] = {"raw": {}, "centred": {}}
    for rows in blocks(len(labels)):
        z, target = logits[rows].astype(np.float64), labels[rows]
        n, mean = np.arange(len(z)), z.mean(axis=1)
        others = z.copy()
        others[n, target] = -np.inf
        for name, values in zip(
            columns, (z.max(axis=1), z[n, target], mean, z[n, target] - others.max(axis=1)), strict=True
        ):
            columns[name].append(values)
        for threshold in thresholds:
            for kind, values in zip(("raw", "centred"), near_zero_shares(z, threshold), strict=True):
                shares[f"{kind} {threshold:g}"].append(values)
        for kind, entries in (("raw", z), ("centred", z - mean[:, None])):
            found, number = np.unique(np.floor(entries / bin_width).astype(np.int64), return_counts=True)
            for key, value in zip(found.tolist(), number.tolist(), strict=True):
                counts[kind][key] = counts[kind].get(key, 0) + value
    quantiles = {name: np.quantile(np.concatenate(parts), _QUANTILES) for name, parts in columns.items()}
    means = {name: float(np.concatenate(parts).mean()) for name, parts in columns.items()}
    mean_shares = {name: float(np.concatenate(parts).mean()) for name, parts in shares.items()}
    drawn = np.concatenate(shares[f"raw {thresholds[0]:g}"])
    return {
        "thresholds": list(thresholds),
        "near_zero_shares": mean_shares,
        "share_histogram": np.histogram(drawn, _SHARES)[0].tolist(),
        "quantiles": {"at": list(_QUANTILES), **{name: values.tolist() for name, values in quantiles.items()}},
        "means": means,
        "density": {kind: _dense(found, bin_width) for kind, found in counts.items()},
        "summary": {f"near-zero share {name}": value for name, value in mean_shares.items()}
        | {f"mean {name} logit": value for name, value in means.items()},
    }


def _dense(counts: Mapping[int, int], width: float) -> dict[str, Any]:
    """Counts by bin as a list from the first bin on; in wider bins where there would be very many."""
    first, last, factor = min(counts), max(counts), 1
    while (last // factor) - (first // factor) >= _MOST_BINS:
        factor *= 2
    found = [0] * (last // factor - first // factor + 1)
    for key, value in counts.items():
        found[key // factor - first // factor] += value
    return {"first": first // factor, "width": width * factor, "counts": found}
