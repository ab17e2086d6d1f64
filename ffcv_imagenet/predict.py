"""The most likely classes of images.

    python -m ffcv_imagenet.predict --run runs/a IMAGE_OR_FOLDER ... [--top 5] [--csv FILE] [--json FILE]
    python -m ffcv_imagenet.predict --weights FILE --arch ARCH IMAGE_OR_FOLDER ...

An image is read, cut out and resized as the run's validation images are. Class names come from the manifest of
``--data``, or of the run's own validation data where it still lies where it lay.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ffcv_imagenet.files import write_atomically
from ffcv_imagenet.names import shown
from ffcv_imagenet.options import Given
from ffcv_imagenet.script import OneLineParser, run_script


def main(argv: Sequence[str]) -> None:
    """``python -m ffcv_imagenet.predict``.

    Raises:
        ValueError, FileNotFoundError: a user's mistake.
    """
    arguments = _parser().parse_args(list(argv))
    if bool(arguments.run) == bool(arguments.weights):
        raise ValueError("give --run=RUN_FOLDER or --weights=FILE --arch=ARCH")
    if arguments.top < 1:
        raise ValueError(f"--top: got {arguments.top}, allowed is a whole number >= 1")
    files = find_images(arguments.images)

    from ffcv_imagenet.analysis.subject import load_subject
    from ffcv_imagenet.distributed import find_world

    values = {"dist.device": arguments.device} | ({"model.arch": arguments.arch} if arguments.arch else {})
    place, world = arguments.run or arguments.weights, find_world(arguments.device)
    subject = load_subject(place, Given(values, {}), world, is_run=bool(arguments.run), data=arguments.data)
    names = subject.class_names()
    found = predict(subject, files, names, arguments.top)
    for one in found:
        texts = (f"{entry['class']} {100 * entry['probability']:.2f} %" for entry in one["classes"])
        print(f"{shown(one['image'])}: {', '.join(texts)}")
    if arguments.json:
        write_atomically(arguments.json, (json.dumps(found, indent=1) + "\n").encode())
    if arguments.csv:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["image", "rank", "class", "label", "probability"])
        for one in found:
            for rank, entry in enumerate(one["classes"], start=1):
                writer.writerow([one["image"], rank, entry["class"], entry["label"], entry["probability"]])
        write_atomically(arguments.csv, text.getvalue().encode(errors="surrogateescape"))


def find_images(places: Sequence[Path]) -> list[Path]:
    """The files among ``places``, and all images below the folders among them, by name.

    Raises:
        FileNotFoundError: a place that is not there, or a folder without images.
    """
    from ffcv_imagenet.data.sources.source import IMAGE_EXTENSIONS

    files: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = sorted(file for file in place.rglob("*") if file.name.lower().endswith(IMAGE_EXTENSIONS))
            if not inside:
                raise FileNotFoundError(f"no image in {shown(place)}")
            files += inside
        elif place.is_file():
            files.append(place)
        else:
            raise FileNotFoundError(f"image not found: {shown(place)}")
    return files


def predict(subject: Any, files: Sequence[Path], names: Sequence[str] | None, top: int) -> list[dict[str, Any]]:
    """The ``top`` classes of each image with their probabilities; of a network without names, labels instead.

    Args:
        subject: of :func:`ffcv_imagenet.analysis.subject.load_subject`.
        files: images.
        names: of the classes.
        top: how many classes.

    Raises:
        ValueError: a file is no image.
    """
    from ffcv_imagenet.analysis.outputs import outputs, read_images
    from ffcv_imagenet.data.sources.single_files import SingleFiles
    from ffcv_imagenet.data.write.pages import page_size_of_pixels
    from ffcv_imagenet.data.write.parameters import resolve_parameters
    from ffcv_imagenet.data.write.splits import write_split

    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        beton = Path(temporary) / "val.beton"
        parameters = resolve_parameters(mode="raw", page_size_mib=page_size_of_pixels(files))
        write_split("val", SingleFiles.of(files), beton, parameters, num_workers=1)
        for batch in outputs(subject, read_images(subject, beton)):
            rows.append(batch.logits.double().softmax(dim=1).cpu())
    found = []
    for file, probabilities in zip(files, (row for part in rows for row in part), strict=True):
        best = probabilities.topk(min(top, len(probabilities)))
        entries = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        classes = [{"class": names[k] if names else str(k), "label": k, "probability": p} for k, p in entries]
        found.append({"image": str(file), "classes": classes})
    return found


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="python -m ffcv_imagenet.predict", description="The most likely classes of images.")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="an image, or a folder of images")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="a run folder: its newest checkpoint")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="a file of weights instead of a run")
    parser.add_argument("--arch", metavar="ARCH", help="architecture of --weights")
    parser.add_argument("--data", type=Path, metavar="FILE.beton", help="data whose manifest names the classes")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="how many classes (default: 5)")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="default: auto")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="save a line per image and class")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the same as JSON")
    return parser


if __name__ == "__main__":
    run_script(main)
