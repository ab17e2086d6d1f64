"""``python -m ffcv_imagenet.train``: train a network on .beton files, or evaluate one. ``--help`` says all options."""

from collections.abc import Sequence

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.options import parse_command, recipe_name
from ffcv_imagenet.script import command_line, run_script


def main(argv: Sequence[str]) -> None:
    """Run with the command-line words ``argv``."""
    config, given = parse_command(TrainConfig, argv, "Train a network on .beton files, or evaluate one.")
    recipe = recipe_name(argv)

    from ffcv_imagenet.experiment import evaluate_only, train

    if config.training.eval_only:
        evaluate_only(config, given=given, recipe=recipe)
    else:
        train(config, recipe=recipe, command=command_line(argv))


if __name__ == "__main__":
    run_script(main)
