"""The command line of the doctor."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.options import build, collect, recipe_name
from ffcv_imagenet.script import OneLineParser


def main(argv: Sequence[str]) -> None:
    """Look at the machine, measure each part of a training on it, and judge.

    Raises:
        ValueError, FileNotFoundError: a user's mistake.
    """
    arguments, words = _parse(argv)
    given = collect(TrainConfig, words, "")
    with _data(dict(given.values)) as (values, sample):
        config = build(TrainConfig, values, given.origins)
        _examine(arguments, config, recipe_name(words), sample)


def _examine(arguments: argparse.Namespace, config: TrainConfig, recipe: str, sample: bool) -> None:
    import torch

    from ffcv_imagenet.doctor.examine import examine, training_notes
    from ffcv_imagenet.doctor.machine import describe_machine, machine_notes
    from ffcv_imagenet.doctor.page import machine_lines, training_lines, verdict_lines
    from ffcv_imagenet.doctor.verdict import judge

    assert config.data.train is not None
    on_gpu = config.dist.device != "cpu" and torch.cuda.is_available()
    processes = arguments.processes or (torch.cuda.device_count() if on_gpu else 1)
    paths = () if sample else (Path(config.data.train),)
    machine = describe_machine((*paths, Path(config.logging.folder)))
    notes = list(machine_notes(machine, processes))
    if not arguments.json:
        print("\n".join([*machine_lines(machine), ""]), flush=True)
    with _telling() as tell:
        examined = examine(config, processes, compiled=arguments.compiled, with_disk=not sample, tell=tell)
    verdict = judge(examined.findings)
    notes += examined.left_out
    if examined.reading is not None and examined.reading.cold is False:
        notes.append("reading is faster here than from the disk: what is read could not be driven out of the memory")
    notes += training_notes(config, examined, machine.disks[-1], sample=sample)
    if processes > 1:
        notes.append(
            f"measured alone: {processes} processes at once share the memory's bandwidth, which this does not see"
        )
    if arguments.json:
        content = {
            "recipe": recipe,
            "sample": sample,
            "machine": dataclasses.asdict(machine),
            "examined": dataclasses.asdict(examined),
            "verdict": dataclasses.asdict(verdict),
            "notes": notes,
        }
        print(json.dumps(content, indent=2))
        return
    data = "drawn images as large as ImageNet's (--data.train=FILE.beton for yours)" if sample else _told(config)
    lines = [*training_lines(config, examined, recipe, data), ""]
    print("\n".join([*lines, *verdict_lines(verdict, examined, notes, times=not sample)]))


@contextlib.contextmanager
def _data(values: dict[str, Any]) -> Iterator[tuple[dict[str, Any], bool]]:
    """The options with files to train on and to validate on, and whether they are drawn here, in a temporary folder.

    Where only the training file is given, ``val.beton`` next to it is the other.
    """
    if values.get("data.train") is not None:
        if values.get("data.val") is None:
            from ffcv_imagenet.data.format.manifest import not_found
            from ffcv_imagenet.doctor.examine import sibling_val

            if not (train := Path(values["data.train"])).is_file():
                raise FileNotFoundError(not_found(train))
            if (val := sibling_val(train)) is not None:
                values["data.val"] = str(val)
        yield values, False
        return
    from ffcv_imagenet.doctor.sample import write_sample

    with tempfile.TemporaryDirectory(prefix="ffcv_imagenet_doctor_") as folder:
        write_sample(Path(folder))
        yield values | {f"data.{split}": f"{folder}/{split}.beton" for split in ("train", "val")}, True


def _told(config: TrainConfig) -> str:
    from ffcv_imagenet.data.format.manifest import Manifest
    from ffcv_imagenet.names import shown
    from ffcv_imagenet.units import size

    assert config.data.train is not None
    data = Manifest.read(Path(config.data.train))
    return (
        f"{shown(config.data.train)}: {data.num_samples:,} images, {data.num_classes} classes, {size(data.num_bytes)}, "
        f"mode {data.parameters.mode}"
    )


@contextlib.contextmanager
def _telling() -> Iterator[Any]:
    """What says on a terminal what is measured now, in a line that is gone at the end."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    yield lambda text: print(f"\r\x1b[Kmeasuring: {text}", end="", file=sys.stderr, flush=True)
    print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = OneLineParser(
        prog="python -m ffcv_imagenet.doctor",
        description="Say what this machine is, what each part of a training reaches on it, and which is the limit. "
        "Takes about a minute; writes nowhere but into a temporary folder and numba's cache.",
        epilog="All options of train_imagenet.py (see there) are allowed too: --config-file RECIPE --data.train=FILE. "
        "Without data.train, it draws images as large as ImageNet's. Without data.val, it takes the val.beton next to "
        "data.train.",
    )
    parser.add_argument("--json", action="store_true", help="all numbers as JSON, in place of the page")
    parser.add_argument(
        "--compiled",
        action="store_true",
        help="measure the step as training.compile has it, which takes a minute more for each image size",
    )
    parser.add_argument(
        "--processes",
        type=_positive,
        metavar="N",
        help="processes of the training on this machine (default: one for each GPU, or one)",
    )
    return parser.parse_known_args(list(argv))


def _positive(text: str) -> int:
    with contextlib.suppress(ValueError):
        if (value := int(text)) >= 1:
            return value
    raise argparse.ArgumentTypeError(f"got {text}, allowed is a whole number >= 1")
