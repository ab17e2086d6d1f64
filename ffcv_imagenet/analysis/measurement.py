"""What a measurement is. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ffcv_imagenet.data.format.manifest import Manifest

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from ffcv_imagenet.analysis.subject import Subject

#: One line of a table: names of columns and their values.
Row = dict[str, Any]


@dataclass(frozen=True)
class DataSet:
    """A .beton file and its manifest; ``place`` is what the user has named: that file, or a folder of images."""

    path: Path
    manifest: Manifest
    place: Path

    @classmethod
    def read(cls, path: Path, place: Path | None = None) -> DataSet:
        """Read the manifest; raises FileNotFoundError or ValueError as :meth:`Manifest.read` does."""
        return cls(path, Manifest.read(path), place or path)


@dataclass(frozen=True)
class DataSets:
    """What is at hand: validation images, training images if any, and what measurements name themselves, by place."""

    val: DataSet
    train: DataSet | None = None
    others: Mapping[str, DataSet] = field(default_factory=dict)


@dataclass(frozen=True)
class Need:
    """What a measurement wants of the images in a .beton file, kept by one pass over them.

    ``kind`` is one of :data:`ffcv_imagenet.analysis.outputs.COLLECTORS`; ``classes`` are labels, where the kind takes
    them.
    """

    data: Path
    kind: str
    classes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Measured:
    """The results of a measurement on a subject, as in its JSON file, and the subject's name."""

    name: str
    results: dict[str, Any]


class Measurement:
    """A measurement: a frozen dataclass whose fields are its options (:func:`ffcv_imagenet.options.option`).

    On the command line an option is ``--NAME.option=value``.
    """

    #: Raised when results of the same inputs change, so that earlier ones are not taken for them.
    version: ClassVar[int] = 1
    #: Whether :meth:`measure` is to be called on every rank, because it passes images through the network itself.
    on_every_rank: ClassVar[bool] = False
    #: Whether ``all`` includes it.
    in_all: ClassVar[bool] = True

    def missing(self, sets: DataSets) -> str | None:
        """Why this cannot be measured with these data; None when it can."""
        return None

    def places(self) -> Sequence[str]:
        """Data sets that its own options name, .beton files or folders of images; :attr:`DataSets.others` has them."""
        return ()

    @property
    def wants_predictions(self) -> bool:
        """Whether it has to know what all subjects predict before the first is measured."""
        return False

    def informed(self, predictions: Sequence[np.ndarray]) -> Measurement:
        """This measurement with options that depend on the predicted classes of all subjects, each [N] by number."""
        return self

    def unfit(self, subject: Subject, sets: DataSets) -> str | None:
        """Why this cannot be measured on a subject; None when it can."""
        from ffcv_imagenet.models import find_head

        kinds = {need.kind for need in self.needs(sets)}
        if "logits" in kinds and sets.val.manifest.num_classes != subject.num_classes:
            of_data = f"{sets.val.path} has {sets.val.manifest.num_classes}"
            return f"{subject.source} has {subject.num_classes} classes, {of_data}"
        if kinds - {"logits"}:
            try:
                find_head(subject.model, subject.num_classes)
            except ValueError as error:
                return str(error)
        return None

    def data(self, sets: DataSets) -> dict[str, DataSet]:
        """The data sets that the results depend on, by their role."""
        return {"val": sets.val}

    def extra_inputs(self) -> dict[str, Any]:
        """What else the results depend on, such as checksums of other files."""
        return {}

    def needs(self, sets: DataSets) -> Sequence[Need]:
        """What a pass over the images has to keep."""
        return ()

    def measure(self, subject: Subject, sets: DataSets, kept: Mapping[Need, Any]) -> dict[str, Any]:
        """The results, values that JSON has; ``summary`` among them are the figures for a table of runs.

        Raises:
            ValueError: it cannot be measured on this subject.
        """
        raise NotImplementedError

    def rows(self, results: dict[str, Any]) -> list[Row]:
        """The results as lines of a CSV file."""
        return [dict(results["summary"])]

    def draw(self, figure: Figure, measured: Sequence[Measured]) -> None:
        """Draw the results of one or more subjects on shared axes."""
        raise NotImplementedError
