"""Train a network on .beton files, or evaluate one. All options: ``python train_imagenet.py --help``."""

import sys
from collections.abc import Sequence

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.options import parse_command, recipe_name
from ffcv_imagenet.script import run_script

DRY_RUN = "--dry-run"


def main(argv: Sequence[str]) -> None:
    """Run with the command-line words ``argv``."""
    flags = {DRY_RUN: "say what would run, refuse what cannot, and stop"}
    config, given = parse_command(TrainConfig, argv, "Train a network on .beton files, or evaluate one.", flags)
    recipe = recipe_name(argv)
    if DRY_RUN in given.flags and config.training.eval_only:
        raise ValueError(f"{DRY_RUN}: an evaluation has nothing to say before it starts, allowed is a training")

    from ffcv_imagenet.experiment import dry_run, evaluate_only, train

    if DRY_RUN in given.flags:
        dry_run(config, recipe=recipe)
    elif config.training.eval_only:
        evaluate_only(config, given=given, recipe=recipe)
    else:
        train(config, recipe=recipe, command=[sys.argv[0], *argv])


if __name__ == "__main__":
    run_script(main)
