"""Make manifest and index for a .beton of stock FFCV, so that it trains.

    python -m ffcv_imagenet.data.adopt FILE.beton [--classes=NAMES.txt] [--split=train|val]

The file itself is only read. What nobody knows any more (from which images it was made, and how) stays unknown.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import ffcv_imagenet
from ffcv_imagenet.data.format import manifest as manifests
from ffcv_imagenet.data.format.beton import Samples, read_samples
from ffcv_imagenet.data.format.index import EntryIndex
from ffcv_imagenet.data.format.manifest import Manifest, WriteParameters
from ffcv_imagenet.data.write.index import write_index
from ffcv_imagenet.files import read_lines
from ffcv_imagenet.names import shown
from ffcv_imagenet.script import OneLineParser, run_script

#: Classes without a name of their own are called by their number, below this many.
_MOST_CLASSES = 1_000_000


def adopt(beton: Path, class_names: Sequence[str] | None = None, split: str | None = None) -> Manifest:
    """Write manifest and index of a .beton file that has none.

    Args:
        beton: a file with a field of images and one of integer labels, whatever their names.
        class_names: of the labels, in their order; None: ``class_0`` and so on.
        split: ``train`` or ``val``; None: what the file's name says.

    Raises:
        FileNotFoundError: no such file.
        FileExistsError: it has a manifest already.
        ValueError: no such .beton file, a damaged one, an index that is damaged or of another file, labels
            without a name, or a name that tells no split.
    """
    if Manifest.path(beton).exists():
        raise FileExistsError(f"{shown(beton)} has a manifest already: {shown(Manifest.path(beton).name)}")
    samples = read_samples(beton)
    if split is None:
        found = set(re.findall(r"(?<![a-z])(train|val)(?![a-z])", beton.name.lower()))
        if len(found) != 1:
            raise ValueError(f"{shown(beton.name)} does not tell its split: give --split=train or --split=val")
        split = found.pop()
    count = int(samples.label.max()) + 1
    if class_names is None:
        if count > _MOST_CLASSES:
            raise ValueError(f"{shown(beton)} has a label {count - 1}, allowed are less than {_MOST_CLASSES}")
        class_names = [f"class_{label:0{len(str(count - 1))}}" for label in range(count)]
    if len(class_names) < count:
        raise ValueError(f"{shown(beton)} has labels up to {count - 1}, but there are {len(class_names)} class names")
    checksum = manifests.file_checksum(beton)
    index = EntryIndex.open(beton, checksum, len(samples.size))
    if index is not None:
        index.verify()
    manifest = Manifest(
        format_version=manifests.FORMAT_VERSION,
        split=split,
        classes=tuple(class_names),
        images_per_class=tuple(np.bincount(samples.label, minlength=len(class_names)).tolist()),
        num_samples=len(samples.size),
        parameters=_parameters(beton, samples),
        source_folder="",
        source_digest="",
        skipped={},
        versions={"ffcv_imagenet": ffcv_imagenet.__version__},
        num_bytes=beton.stat().st_size,
        checksum=checksum,
        tables_checksum=samples.tables_checksum,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        source_format="adopted",
    )
    # Making the index reads every JPEG: a damaged file gets no manifest.
    if index is None:
        write_index(beton, checksum=checksum)
    manifest.write(beton)
    return manifest


def oddities(samples: Samples, manifest: Manifest) -> list[str]:
    """What is unusual in a data set, a line each."""
    found = []
    if empty := manifest.empty_classes:
        found.append(f"{len(empty)} classes have no image: {', '.join(map(shown, empty[:5]))}")
    if set(samples.stock_names) != set(samples.fields):
        found.append(f"its fields are called {', '.join(map(shown, samples.stock_names))}")
    if small := int((np.minimum(samples.height, samples.width) < 32).sum()):
        found.append(f"{small} images are smaller than 32 pixels")
    return found


def _parameters(beton: Path, samples: Samples) -> WriteParameters:
    """What can be seen of how the file was made."""
    share = float(samples.is_jpeg.mean())
    mode = "jpg" if share == 1 else "raw" if share == 0 else "proportion"
    header = np.fromfile(beton, np.dtype("<u4"), 2)
    return WriteParameters(
        mode=mode,
        max_resolution=None,
        resize=None,
        compress_probability=share if mode == "proportion" else None,
        smart_threshold=None,
        jpeg_quality=None,
        reencode=True,
        subset=-1,
        shuffle=bool((np.diff(samples.label) < 0).any()),
        seed=0,
        page_size_mib=int(header[1]) >> 20,
        max_pixels=manifests.MAX_PIXELS,
    )


def main(argv: Sequence[str]) -> None:
    """``python -m ffcv_imagenet.data.adopt FILE.beton ...``."""
    parser = OneLineParser(
        prog="python -m ffcv_imagenet.data.adopt",
        description="Make manifest and index for .beton files of stock FFCV, so that they train.",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.beton")
    parser.add_argument("--classes", type=Path, help="text file with a class name a line, in the order of the labels")
    parser.add_argument("--split", choices=("train", "val"), help="where the file's name does not tell it")
    arguments = parser.parse_args(argv)
    names = None
    if arguments.classes is not None:
        names = [line.strip() for line in read_lines(arguments.classes) if line.strip()]
    for beton in arguments.files:
        manifest = adopt(beton, names, arguments.split)
        print(
            f"{shown(beton)}: {manifest.split}, {manifest.num_samples} images, {manifest.num_classes} classes, "
            f"{100 * (manifest.parameters.compress_probability or float(manifest.parameters.mode == 'jpg')):.0f} % JPEG"
        )
        for line in oddities(read_samples(beton, manifest), manifest):
            print(f"{shown(beton)}: note: {line}")


if __name__ == "__main__":
    run_script(main)
