"""Accuracy per class and per group of classes, and what the worst classes are taken for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ffcv_imagenet.analysis.measurement import DataSet, DataSets, Measured, Measurement, Need, Row
from ffcv_imagenet.options import Integer, Text, option

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ffcv_imagenet.analysis.subject import Subject

GROUPS = ("many", "medium", "few")


@dataclass(frozen=True)
class Groups(Measurement):
    """Accuracy of every class, and of the classes with many, medium and few training images.

    ``by=thirds``: the classes in the order of their training images, in three parts as equal as possible (of 10: 3, 4,
    3). ``by=100,20``: many have more than 100 training images, few less than 20 (the thresholds of ImageNet-LT; on
    CIFAR-10-LT they leave "few" empty). A group's accuracy is over its images; an empty group has none.
    """

    by: str = option(Text(), "thirds, or two thresholds of training images such as 100,20", "thirds")
    worst: int = option(Integer(0, 1000), "worst classes whose confusions are listed", 10)

    def data(self, sets: DataSets) -> dict[str, DataSet]:
        """See :class:`Measurement`."""
        return {"val": sets.val} | ({"train": sets.train} if sets.train else {})

    def needs(self, sets: DataSets) -> list[Need]:
        """See :class:`Measurement`."""
        return [Need(sets.val.path, "logits")]

    def measure(self, subject: Subject, sets: DataSets, kept: Mapping[Need, Any]) -> dict[str, Any]:
        """See :class:`Measurement`."""
        rows = kept[self.needs(sets)[0]].rows
        counts = sets.train.manifest.images_per_class if sets.train else None
        groups = None if counts is None else group_classes(counts, self.by)
        classes = sets.val.manifest.classes
        return accuracies(rows.values.argmax(axis=1), rows.labels, classes, groups, counts, self.worst)

    def rows(self, results: dict[str, Any]) -> list[Row]:
        """See :class:`Measurement`."""
        return results["classes"]

    def draw(self, figure: Figure, measured: Sequence[Measured]) -> None:
        """See :class:`Measurement`."""
        figure.set_size_inches(8, 1.5 + 0.5 * len(measured))
        panel, width = figure.subplots(), 0.8 / max(1, len(measured))
        names = list(measured[0].results["groups"])
        for number, one in enumerate(measured):
            values = [one.results["groups"][name]["accuracy"] for name in names]
            places = [n + (number - (len(measured) - 1) / 2) * width for n, v in enumerate(values) if v is not None]
            panel.bar(places, [100 * v for v in values if v is not None], width, label=one.name)
        panel.set(xticks=range(len(names)), ylabel="accuracy (%)")
        panel.set_xticklabels(names)
        panel.legend()


def group_classes(counts: Sequence[int], by: str) -> list[str]:
    """Each class's group, from its number of training images.

    Raises:
        ValueError: ``by`` is neither ``thirds`` nor two thresholds.
    """
    if by == "thirds":
        order = np.argsort(-np.asarray(counts), kind="stable")
        ends = len(order) // 3, len(order) - len(order) // 3
        groups = [""] * len(order)
        for place, label in enumerate(order):
            groups[label] = GROUPS[(place >= ends[0]) + (place >= ends[1])]
        return groups
    try:
        many, few = (int(word) for word in by.split(","))
    except ValueError:
        raise ValueError(f"groups.by: got {by!r}, allowed is thirds, or two numbers such as 100,20") from None
    if few > many:
        raise ValueError(f"groups.by: got {by!r}, allowed is the larger number first")
    return [GROUPS[0] if count > many else GROUPS[2] if count < few else GROUPS[1] for count in counts]


def accuracies(
    predicted: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    groups: Sequence[str] | None,
    counts: Sequence[int] | None,
    worst: int,
) -> dict[str, Any]:
    """The results of :class:`Groups` from predicted and true labels, [N] each."""
    k = len(classes)
    confusion = np.zeros((k, k), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    images, right = confusion.sum(axis=1), confusion.diagonal()
    accuracy = [float(r / n) if n else None for r, n in zip(right.tolist(), images.tolist(), strict=True)]
    of_class = [
        {
            "class": classes[label],
            "label": label,
            "training_images": counts[label] if counts is not None else None,
            "group": groups[label] if groups is not None else None,
            "images": int(images[label]),
            "accuracy": accuracy[label],
        }
        for label in range(k)
    ]
    members = {"all": np.ones(k, bool)}
    if groups is not None:
        members |= {name: np.array([group == name for group in groups]) for name in GROUPS}
    of_group = {
        name: {
            "classes": int(inside.sum()),
            "images": int(images[inside].sum()),
            "accuracy": float(right[inside].sum() / images[inside].sum()) if images[inside].sum() else None,
        }
        for name, inside in members.items()
    }
    order = sorted((label for label in range(k) if images[label]), key=lambda label: (accuracy[label], label))
    confused = []
    for label in order[:worst]:
        others = confusion[label].copy()
        others[label] = 0
        taken_for = [int(other) for other in np.argsort(-others, kind="stable")[:3] if others[other]]
        confused.append(
            {
                "class": classes[label],
                "accuracy": accuracy[label],
                "taken_for": [
                    {"class": classes[other], "share": float(others[other] / images[label])} for other in taken_for
                ],
            }
        )
    known = [value for value in accuracy if value is not None]
    return {
        "groups": of_group,
        "classes": of_class,
        "worst": confused,
        "summary": {f"accuracy {name}": values["accuracy"] for name, values in of_group.items()}
        | {"mean accuracy per class": float(np.mean(known)), "accuracy of the worst class": min(known)},
    }
