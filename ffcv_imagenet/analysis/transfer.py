"""How well a linear classifier on the frozen features does on another data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ffcv_imagenet.analysis.measurement import DataSet, DataSets, Measured, Measurement, Need, Row
from ffcv_imagenet.options import Integer, OrNone, Real, Switch, Text, option

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from ffcv_imagenet.analysis.subject import Subject

#: Strengths of L2: Kornblith et al., arXiv 1805.08974.
STRENGTHS = tuple(np.logspace(-6, 5, 45).tolist())


@dataclass(frozen=True)
class Transfer(Measurement):
    """Multinomial logistic regression on frozen features of other data: top-1 and the mean over classes.

    The objective is (1/n) sum CE + (s/2) |W|^2 with a free bias, for 45 strengths s from 1e-6 to 1e5 (scikit-learn's C
    is 1/(n s)). The strength with the best accuracy on a held-out tenth of the training images (stratified, drawn by
    the seed) is fitted again on all of them and judged on the test images. Where several are equally good, the largest
    counts. Features come from the centre of the image at the run's validation resolution, in evaluation mode.
    """

    train: str | None = option(OrNone(Text()), "training images of the target data: .beton, or class folders", None)
    test: str | None = option(OrNone(Text()), "test images of the target data: .beton, or class folders", None)
    held_out: float = option(Real(0.01, 0.9), "share of the training images that chooses the strength", 0.1)
    standardise: bool = option(Switch(), "give every feature mean 0 and standard deviation 1", False)
    seed: int = option(Integer(0), "draws the held-out images", 0)
    max_iterations: int = option(Integer(1), "most steps of L-BFGS", 2000)

    def missing(self, sets: DataSets) -> str | None:
        """See :class:`Measurement`."""
        if self.train is None or self.test is None:
            return "transfer needs --transfer.train=WHERE and --transfer.test=WHERE, each a .beton or class folders"
        return None

    def places(self) -> list[str]:
        """See :class:`Measurement`."""
        return [place for place in (self.train, self.test) if place is not None]

    def data(self, sets: DataSets) -> dict[str, DataSet]:
        """See :class:`Measurement`."""
        assert self.train is not None
        assert self.test is not None
        found = {"target train": sets.others[self.train], "target test": sets.others[self.test]}
        if len({one.manifest.classes for one in found.values()}) > 1:
            raise ValueError(f"{self.train} and {self.test} have different classes")
        return found

    def needs(self, sets: DataSets) -> list[Need]:
        """See :class:`Measurement`."""
        return [Need(data.path, "features") for data in self.data(sets).values()]

    def measure(self, subject: Subject, sets: DataSets, kept: Mapping[Need, Any]) -> dict[str, Any]:
        """See :class:`Measurement`."""
        import torch

        found = [kept[need].rows for need in self.needs(sets)]
        device = subject.world.device
        features = [torch.from_numpy(rows.values).to(device).double() for rows in found]
        labels = [torch.from_numpy(rows.labels).to(device) for rows in found]
        classes = len(next(iter(self.data(sets).values())).manifest.classes)
        return transfer(
            features[0],
            labels[0],
            features[1],
            labels[1],
            classes,
            held_out=self.held_out,
            seed=self.seed,
            standardise=self.standardise,
            max_iterations=self.max_iterations,
        )

    def rows(self, results: dict[str, Any]) -> list[Row]:
        """See :class:`Measurement`."""
        return results["path"]

    def draw(self, figure: Figure, measured: Sequence[Measured]) -> None:
        """See :class:`Measurement`."""
        figure.set_size_inches(7, 4.5)
        panel = figure.subplots()
        for number, one in enumerate(measured):
            path, best = one.results["path"], one.results["strength"]
            accuracy = [100 * entry["held_out_accuracy"] for entry in path]
            panel.semilogx([entry["strength"] for entry in path], accuracy, color=f"C{number}")
            label = f"{one.name}: test {100 * one.results['summary']['top-1']:.2f} %"
            panel.plot([best], [max(accuracy)], "o", color=f"C{number}", label=label)
        panel.set(xlabel="strength of L2", ylabel="accuracy on the held-out images (%)")
        panel.legend()


def stratified_holdout(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which images are held out, [N] bool: this share of each class, but neither none nor all where it has two."""
    generator, held_out = np.random.default_rng(seed), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(share * len(members))), len(members) - 1)
        held_out[members[:count]] = True
    return held_out


def transfer(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    num_classes: int,
    *,
    held_out: float = 0.1,
    seed: int = 0,
    standardise: bool = False,
    max_iterations: int = 2000,
    strengths: Sequence[float] = STRENGTHS,
) -> dict[str, Any]:
    """The results of :class:`Transfer` from features [N, D] float64 and labels [N] int64."""
    import torch

    from ffcv_imagenet.analysis.softmax_regression import fit

    if standardise:
        mean, deviation = train.mean(dim=0), train.std(dim=0, correction=0)
        deviation = torch.where(deviation > 0, deviation, 1.0)
        train, test = (train - mean) / deviation, (test - mean) / deviation
    chosen = torch.from_numpy(stratified_holdout(train_labels.cpu().numpy(), held_out, seed)).to(train.device)
    if not chosen.any() or chosen.all():
        raise ValueError("transfer needs two images or more of a class")
    path_fit = fit(train[~chosen], train_labels[~chosen], num_classes, strengths, max_iterations=max_iterations)
    accuracy = []
    for weight, bias in zip(path_fit.weight, path_fit.bias, strict=True):
        predicted = (train[chosen] @ weight.T + bias).argmax(dim=1)
        accuracy.append(float((predicted == train_labels[chosen]).double().mean()))
    best = max(range(len(strengths)), key=lambda number: (accuracy[number], strengths[number]))
    final = fit(train, train_labels, num_classes, [strengths[best]], max_iterations=max_iterations)
    right = (test @ final.weight[0].T + final.bias[0]).argmax(dim=1) == test_labels
    per_class = [float(right[test_labels == k].double().mean()) for k in range(num_classes) if (test_labels == k).any()]
    notes = []
    if strengths[best] in (min(strengths), max(strengths)):
        notes.append(f"the best strength {strengths[best]:g} lies at an end of the grid")
    if not (path_fit.converged.all() and final.converged.all()):
        unfinished = int((~path_fit.converged).sum()) + int((~final.converged).sum())
        notes.append(f"{unfinished} fits have not converged in {max_iterations} iterations")
    return {
        "path": [
            {"strength": strength, "held_out_accuracy": share, "objective": objective, "converged": done}
            for strength, share, objective, done in zip(
                strengths, accuracy, path_fit.objective.tolist(), path_fit.converged.tolist(), strict=True
            )
        ],
        "strength": strengths[best],
        "c": 1 / (len(train) * strengths[best]),
        "iterations": [path_fit.iterations, final.iterations],
        "notes": notes,
        "summary": {
            "top-1": float(right.double().mean()),
            "mean per class": float(np.mean(per_class)),
            "strength": strengths[best],
        },
    }
