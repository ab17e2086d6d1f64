"""The features of three classes in the plane of their templates or of their centroids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ffcv_imagenet.analysis.measurement import DataSet, DataSets, Measured, Measurement, Need, Row
from ffcv_imagenet.analysis.panels import panel_for_each
from ffcv_imagenet.options import Choice, Integer, Text, option

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ffcv_imagenet.analysis.subject import Subject

COLOURS = ("#C64A00", "#00845F", "#0072B2")


@dataclass(frozen=True)
class Plane(Measurement):
    """Features (the input of the last linear layer) of three classes, projected onto a plane.

    ``templates``: the plane through the three classes' rows of the last weight matrix (Mueller et al., arXiv
    1906.02629), which the network fixes. ``centroids``: the plane through the mean features of the three classes. The
    origin is the mean of the three class means; the first class's anchor (its template or centroid, less the mean of
    the three) points to the left, the second one's lies above, so that runs compare; all panels have one range.
    """

    classes: str = option(Text(), "three classes, names or labels, separated by commas", "0,1,2")
    kind: str = option(Choice("templates", "centroids"), "which plane", "templates")
    split: str = option(Choice("val", "train"), "images of which data set", "val")
    per_class: int = option(Integer(1), "at most so many images of a class, drawn by the seed", 200)
    seed: int = option(Integer(0), "draws the images", 0)

    def missing(self, sets: DataSets) -> str | None:
        """See :class:`Measurement`."""
        if self.split == "train" and sets.train is None:
            return "plane.split=train needs --train-data=FILE.beton"
        if sets.val.manifest.num_classes < 3:
            return "a plane needs three classes"
        return None

    def data(self, sets: DataSets) -> dict[str, DataSet]:
        """See :class:`Measurement`."""
        data = sets.train if self.split == "train" else sets.val
        assert data is not None
        return {self.split: data}

    def labels(self, sets: DataSets) -> tuple[int, ...]:
        """The three classes as labels; raises ValueError for others than three different ones."""
        names = self.data(sets)[self.split].manifest.classes
        words = self.classes.split(",")
        found = [names.index(word) if word in names else int(word) if word.isdecimal() else -1 for word in words]
        if len(set(found)) != 3 or len(found) != 3 or not all(0 <= label < len(names) for label in found):
            raise ValueError(f"plane.classes: got {self.classes!r}, allowed are three different classes or labels")
        return tuple(found)

    def needs(self, sets: DataSets) -> list[Need]:
        """See :class:`Measurement`."""
        return [Need(self.data(sets)[self.split].path, "features", self.labels(sets))]

    def measure(self, subject: Subject, sets: DataSets, kept: Mapping[Need, Any]) -> dict[str, Any]:
        """See :class:`Measurement`."""
        from ffcv_imagenet.models import find_head

        need = self.needs(sets)[0]
        rows, labels = kept[need].rows, self.labels(sets)
        names = self.data(sets)[self.split].manifest.classes
        head = find_head(subject.model, subject.num_classes)
        if subject.num_classes != len(names) and self.kind == "templates":
            raise ValueError(f"{subject.source} has {subject.num_classes} classes, the data {len(names)}")
        generator = np.random.default_rng(self.seed)
        features = []
        for label in labels:
            found = np.flatnonzero(rows.labels == label)
            if not len(found):
                raise ValueError(f"plane: there is no image of the class {names[label]}")
            chosen = np.sort(generator.permutation(found)[: self.per_class])
            features.append(rows.values[chosen].astype(np.float64))
        templates = head.weight.detach().double().cpu().numpy()[list(labels)] if self.kind == "templates" else None
        return {"kind": self.kind, "classes": [names[label] for label in labels], **project(features, templates)}

    def rows(self, results: dict[str, Any]) -> list[Row]:
        """See :class:`Measurement`."""
        return [
            {"class": name, "x": x, "y": y}
            for name, points in zip(results["classes"], results["points"], strict=True)
            for x, y in points
        ]

    def draw(self, figure: Figure, measured: Sequence[Measured]) -> None:
        """See :class:`Measurement`."""
        panels = panel_for_each(figure, len(measured), 4)
        points = [np.array(p) for one in measured for p in one.results["points"]]
        side = 1.05 * max(float(np.abs(p).max()) for p in points) or 1.0
        for panel, one in zip(panels, measured, strict=True):
            for name, group, colour in zip(one.results["classes"], one.results["points"], COLOURS, strict=True):
                panel.scatter(
                    [x for x, _ in group], [y for _, y in group], s=12, alpha=0.6, color=colour, label=name, lw=0
                )
            explained = 100 * one.results["variance_explained"]
            panel.set(
                title=f"{one.name}: {explained:.1f} % of the variance",
                xlim=(-side, side),
                ylim=(-side, side),
                aspect="equal",
            )
        panels[0].legend()


def project(features: Sequence[np.ndarray], templates: np.ndarray | None) -> dict[str, Any]:
    """Project the features of three classes, three arrays [n, D] float64.

    Args:
        features: of each class.
        templates: [3, D], the plane goes through them; None: through the classes' centroids.

    Returns:
        points, variance explained (the share of the squared distances to the mean of all points that lies in the
        plane), mean distance of a class's points to its centroid in the plane (radius) and in all dimensions.

    Raises:
        ValueError: the three templates or centroids lie on a line.
    """
    centroids = np.stack([group.mean(axis=0) for group in features])
    anchors = centroids if templates is None else templates.astype(np.float64)
    basis = plane_basis(anchors)
    points = [(group - centroids.mean(axis=0)) @ basis for group in features]
    everything = np.concatenate(list(features))
    spread = everything - everything.mean(axis=0)
    total = float((spread**2).sum())
    in_plane = [float(np.linalg.norm(p - p.mean(axis=0), axis=1).mean()) for p in points]
    in_all = [
        float(np.linalg.norm(group - centre, axis=1).mean()) for group, centre in zip(features, centroids, strict=True)
    ]
    explained = float(((spread @ basis) ** 2).sum()) / total if total else None
    return {
        "points": [p.tolist() for p in points],
        "variance_explained": explained,
        "mean_radius": in_plane,
        "mean_distance": in_all,
        "summary": {"variance explained": explained, "mean radius": float(np.mean(in_plane))},
    }


def plane_basis(anchors: np.ndarray) -> np.ndarray:
    """Orthonormal basis [D, 2] of the plane through three points [3, D], with the orientation of :class:`Plane`.

    Raises:
        ValueError: they lie on a line.
    """
    centred = anchors - anchors.mean(axis=0)
    length = np.linalg.norm(centred, axis=1).max()
    left = -centred[0]
    if np.linalg.norm(left) > 1e-9 * length:
        x = left / np.linalg.norm(left)
        up = centred[1] - (centred[1] @ x) * x
        if np.linalg.norm(up) > 1e-9 * length:
            return np.stack([x, up / np.linalg.norm(up)], axis=1)
    raise ValueError("plane: the three templates or centroids lie on a line")
