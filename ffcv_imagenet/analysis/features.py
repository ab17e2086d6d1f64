"""How closely the features of a class lie together, and how far the classes lie apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ffcv_imagenet.analysis.measurement import DataSet, DataSets, Measured, Measurement, Need, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ffcv_imagenet.analysis.subject import Subject


@dataclass(frozen=True)
class Features(Measurement):
    """d_within, d_total and R^2 = 1 - d_within / d_total of the features (the input of the last linear layer).

    With u a feature vector of length 1: d_within is the mean over classes of the mean over all pairs of images of the
    class, an image with itself included, of 1 - u_m . u_n; d_total is the mean over all pairs of classes, a class with
    itself included, of the same over pairs of their images. Every class counts alike, whatever its size (Kornblith et
    al., arXiv 2010.16402; Tables 1 and 14 of the MaxSup paper, arXiv 2502.15798). With the class means mu_k of u,
    d_within = 1 - mean_k |mu_k|^2 and d_total = 1 - |mean_k mu_k|^2: exact, in float64, from one pass.
    """

    def data(self, sets: DataSets) -> dict[str, DataSet]:
        """See :class:`Measurement`."""
        return {"val": sets.val} | ({"train": sets.train} if sets.train else {})

    def needs(self, sets: DataSets) -> list[Need]:
        """See :class:`Measurement`."""
        return [Need(data.path, "class_sums") for data in self.data(sets).values()]

    def measure(self, subject: Subject, sets: DataSets, kept: Mapping[Need, Any]) -> dict[str, Any]:
        """See :class:`Measurement`."""
        results: dict[str, Any] = {"summary": {}}
        for role, data in self.data(sets).items():
            sums = kept[Need(data.path, "class_sums")]
            arrays = (tensor.cpu().numpy() for tensor in (sums.sums, sums.counts))
            results[role] = class_separation(*arrays) | {"images_without_features": int(sums.zeros.item())}
            for name in ("d_within", "d_total", "r2"):
                results["summary"][f"{name} {role}"] = results[role][name]
        return results

    def rows(self, results: dict[str, Any]) -> list[Row]:
        """See :class:`Measurement`."""
        return [{"data": role, **values} for role, values in results.items() if role != "summary"]

    def draw(self, figure: Figure, measured: Sequence[Measured]) -> None:
        """See :class:`Measurement`."""
        panels = figure.subplots(1, 3)
        figure.set_size_inches(12, 1.5 + 0.4 * len(measured))
        for panel, name in zip(panels, ("d_within", "d_total", "r2"), strict=True):
            for shift, role in ((-0.2, "train"), (0.2, "val")):
                places = [n + shift for n, one in enumerate(measured) if role in one.results]
                values = [one.results[role][name] for one in measured if role in one.results]
                panel.barh(places, values, height=0.38, label=role, color="#0072B2" if role == "val" else "#9AB8D0")
            panel.set(title={"r2": "R²"}.get(name, name), yticks=range(len(measured)))
            panel.set_yticklabels([one.name for one in measured] if panel is panels[0] else [])
            panel.invert_yaxis()
        panels[-1].legend()


def class_separation(sums: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    """d_within, d_total and R^2 from the sums of unit vectors per class, [K, D], and their numbers, [K], float64.

    Classes without images are left out. R^2 is None where all features point into one direction.
    """
    there = counts > 0
    if not there.any():
        raise ValueError("no image has features that are not all 0")
    means = sums[there] / counts[there, None]
    within = 1 - float((means**2).sum(axis=1).mean())
    total = 1 - float((means.mean(axis=0) ** 2).sum())
    return {
        "d_within": within,
        "d_total": total,
        "r2": 1 - within / total if total > 1e-12 else None,
        "classes": int(there.sum()),
        "images": int(counts.sum()),
    }
