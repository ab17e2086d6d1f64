"""The sweep's own options on its command line; torch is not needed for them, so that ``--help`` is answered at once."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from ffcv_imagenet.config import SweepOptions, TrainConfig
from ffcv_imagenet.hints import unknown_arguments
from ffcv_imagenet.options import options_of
from ffcv_imagenet.script import OneLineParser


def split_words(argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The sweep's own options by name, and the words for the trainings. ``--help`` is answered, and leaves.

    Raises:
        ValueError: an option without its value.
    """
    parser = OneLineParser(
        prog="python -m ffcv_imagenet.sweep",
        description="Train every combination of the swept options, side by side, and compare them in one table.",
        epilog="All options of python -m ffcv_imagenet.train (see there) are allowed too, for all runs, and any of "
        "them can be swept: --sweep.lr.lr=0.5,1.0. Options of a loss go to the runs with a loss that takes them.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--runs", metavar="FOLDER", help="folder of all runs (short for --logging.folder)")
    parser.add_argument("--dry-run", action="store_true", help="show the plan and stop")
    parser.add_argument("--sweep.loss", metavar="A,B", help="losses to compare (short for --sweep.loss.name)")
    parser.add_argument("--sweep.seeds", metavar="0,1", help="seeds of each, also 0-4 (for --sweep.training.seed)")
    for key in options_of(TrainConfig):
        parser.add_argument(f"--sweep.{key}", help=argparse.SUPPRESS)
    for field in dataclasses.fields(SweepOptions):
        text = f"{field.metadata['help']} ({field.metadata['checker'].help()}; default: {str(field.default).lower()})"
        parser.add_argument(f"--sweep.{field.name}", metavar="X", help=text.replace("%", "%%"))
    namespace, rest = parser.parse_known_args(list(argv))
    if unknown := [word for word in rest if word.startswith("--sweep.")]:
        raise ValueError("; ".join(unknown_arguments(unknown, parser.option_names)))
    return vars(namespace), rest
