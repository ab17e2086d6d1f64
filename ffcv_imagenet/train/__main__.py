"""``python -m ffcv_imagenet.train``: train a network on .beton files, or evaluate one. ``--help`` says all options."""

from collections.abc import Sequence

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.options import parse_command, recipe_name
from ffcv_imagenet.script import command_line, run_script

_DRY_RUN = "--dry-run"


def main(argv: Sequence[str]) -> None:
    """Run with the command-line words ``argv``."""
    flags = {_DRY_RUN: "say what would run, refuse what cannot, and stop"}
    config, given = parse_command(TrainConfig, argv, "Train a network on .beton files, or evaluate one.", flags)
    recipe = recipe_name(argv)
    if _DRY_RUN in given.flags and config.training.eval_only:
        raise ValueError(f"{_DRY_RUN} is for a training, got training.eval_only=1")

    from ffcv_imagenet.experiment import dry_run, evaluate_only, train

    if _DRY_RUN in given.flags:
        dry_run(config, recipe=recipe)
    elif config.training.eval_only:
        evaluate_only(config, given=given, recipe=recipe)
    else:
        train(config, recipe=recipe, command=command_line(argv))


if __name__ == "__main__":
    run_script(main)
