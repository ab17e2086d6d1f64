"""Parts of a data set: some classes, some images of each, or fewer and fewer from class to class (long-tailed)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ffcv_imagenet.data.format.manifest import WriteParameters
from ffcv_imagenet.data.sources.source import Source
from ffcv_imagenet.data.write.parameters import parse_imbalance, random_words
from ffcv_imagenet.files import read_lines
from ffcv_imagenet.names import shown


@dataclass(frozen=True, kw_only=True)
class Selection(Source):
    """Some samples of another source.

    Attributes:
        source: the other.
        chosen: [N] int64, the numbers of its samples.
    """

    source: Source
    chosen: np.ndarray

    def read(self, number: int) -> bytes:
        """Content of the image file of sample ``number``; raises ValueError with the reason."""
        return self.source.read(int(self.chosen[number]))

    def where(self, number: int) -> str:
        """As the other source names it."""
        return self.source.where(int(self.chosen[number]))


def choose_classes(sources: Mapping[str, Source], wanted: str) -> dict[str, Source]:
    """The splits with some of their classes, which get new labels in the same order.

    Args:
        sources: the splits.
        wanted: a number of classes (the first ones), or a text file with the name of a class in each line, which may
            go on with other words.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a class that is not there.
    """
    chosen: dict[str, Source] = {}
    for split, source in sources.items():
        if wanted.isdecimal():
            if not 1 <= int(wanted) <= len(source.classes):
                raise ValueError(f"write.classes: got {wanted}, allowed are 1 to {len(source.classes)}, or a file")
            names = set(source.classes[: int(wanted)])
        else:
            names = _read_classes(Path(wanted).expanduser(), source.classes)
        labels = [label for label, name in enumerate(source.classes) if name in names]
        new_label = np.full(len(source.classes), -1)
        new_label[labels] = np.arange(len(labels))
        numbers = np.flatnonzero(new_label[source.labels] >= 0)
        classes = tuple(source.classes[label] for label in labels)
        part = select(source, numbers)
        chosen[split] = dataclasses.replace(
            part,
            classes=classes,
            labels=new_label[part.labels],
            class_names=tuple(source.class_names[label] for label in labels) if source.class_names else (),
            digest=hashlib.blake2b(repr((source.digest, classes)).encode(), digest_size=16).hexdigest(),
        )
    return chosen


def _read_classes(file: Path, classes: Sequence[str]) -> set[str]:
    if not file.is_file():
        raise FileNotFoundError(f"write.classes: no such file: {shown(file)}")
    names = set()
    for number, line in enumerate(read_lines(file), 1):
        if line.strip():
            # The whole line, for names with blanks; else its first word, for lists such as "n01440764 tench".
            found = [name for name in (line.strip(), line.split()[0]) if name in classes]
            if not found:
                raise ValueError(f"write.classes: {shown(file)}, line {number}: no class {shown(line.strip())}")
            names.add(found[0])
    if not names:
        raise ValueError(f"write.classes: {shown(file)} names no class")
    return names


def draw(source: Source, parameters: WriteParameters) -> Source:
    """The samples that ``per_class`` and ``imbalance`` leave; the source itself without them."""
    if parameters.per_class is not None:
        words = random_words(parameters.seed, "per_class", len(source.labels))
        numbers = np.lexsort((words, source.labels))
        starts = np.searchsorted(source.labels[numbers], np.arange(len(source.classes)))
        place = np.arange(len(numbers)) - starts[source.labels[numbers]]  # in its class
        return select(source, np.sort(numbers[place < parameters.per_class]))
    if parameters.imbalance is not None:
        numbers = long_tail(source.labels, len(source.classes), parameters.imbalance, parameters.seed)
        left = np.bincount(source.labels[numbers], minlength=len(source.classes))
        if not left.all():
            raise ValueError(
                f"write.imbalance: got {parameters.imbalance}, which leaves {np.count_nonzero(left == 0)} of "
                f"{len(left)} classes without an image, such as {shown(source.classes[int(left.argmin())])}; "
                f"allowed is a ratio of at most {len(source.labels) // len(left)}, the images of a class on average"
            )
        return select(source, numbers)
    return source


def long_tail(labels: np.ndarray, num_classes: int, imbalance: str, seed: int) -> np.ndarray:
    """The numbers of the samples that a long-tailed version keeps, ascending.

    Those of Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", 2019, for CIFAR in
    its own order and their seed 0: a class of index i keeps int(n r^(i/(K-1))) images (``exp``), or the first half of
    the classes n and the others int(n r) (``step``), for n images per class on average and r = 1 / ratio.

    Args:
        labels: [N] int64.
        num_classes: K.
        imbalance: ``exp:RATIO`` or ``step:RATIO``.
        seed: of numpy's RandomState, which shuffles the images of one class after the other.
    """
    shape, ratio = parse_imbalance(imbalance)
    most = len(labels) / num_classes
    generator = np.random.RandomState(seed)
    kept = []
    for label in range(num_classes):
        if shape == "exp":
            count = int(most * (1 / ratio) ** (label / max(1, num_classes - 1)))
        else:
            count = int(most) if label < num_classes // 2 else int(most * (1 / ratio))
        numbers = np.flatnonzero(labels == label)
        generator.shuffle(numbers)
        kept.append(numbers[:count])
    return np.sort(np.concatenate(kept))


def select(source: Source, numbers: np.ndarray) -> Selection:
    """The samples ``numbers`` of a source."""
    own = {field.name: getattr(source, field.name) for field in dataclasses.fields(Source)}
    own |= {"files": [source.files[number] for number in numbers.tolist()], "labels": source.labels[numbers]}
    return Selection(**own, source=source, chosen=numbers)
