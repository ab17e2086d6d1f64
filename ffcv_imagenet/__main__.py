"""``ffcv-imagenet COMMAND ...``: all commands of the package. Each is ``python -m ffcv_imagenet.COMMAND`` too."""

import runpy
import sys
from collections.abc import Sequence

from ffcv_imagenet.script import run_script

PRINT_COMPLETION = "--print-completion"

#: What each command does. Its module is of the same name.
COMMANDS = {
    "write": "convert images, as a folder or as people download them, to FFCV's .beton files",
    "train": "train a network on .beton files, or evaluate one",
    "sweep": "train every combination of some options, side by side on this machine",
    "watch": "show how runs stand while they train",
    "doctor": "say what each part of a training reaches on this machine, and which is the limit",
    "report": "compare runs in a table, a page and a plot",
    "analysis": "measure trained networks",
    "predict": "the most likely classes of images",
    "export": "write a network for other programs",
    "data.index": "make or check the entry-point index of a .beton file",
    "data.verify": "check a .beton file",
    "data.show": "show what a .beton file holds",
    "data.extract": "write the images of a .beton file into a folder",
    "data.adopt": "make a manifest for a .beton file of stock FFCV",
    "data.digits": "write scikit-learn's handwritten digits as images",
}


def main(argv: Sequence[str]) -> None:
    """Run the command that the first of the words ``argv`` names, with the others.

    Raises:
        ValueError: there is no such command.
    """
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print("usage: ffcv-imagenet COMMAND [--help] ...\n")
        print(*(f"  {name:{width}}  {text}" for name, text in COMMANDS.items()), sep="\n")
        print("\n--print-completion bash|zsh prints what a shell completes (docs/install.md)")
        return
    if argv[0].startswith(PRINT_COMPLETION):
        from ffcv_imagenet import completion

        shell = argv[0].partition("=")[2] or " ".join(argv[1:])
        print(completion.script(shell, list(COMMANDS)), end="")
        return
    name, *words = argv
    if name not in COMMANDS:
        raise ValueError(f"unknown command {name!r}, allowed are {', '.join(COMMANDS)}")
    sys.argv = [sys.argv[0], *words]
    runpy.run_module(f"ffcv_imagenet.{name}", run_name="__main__", alter_sys=True)


def run() -> None:
    """The console command."""
    run_script(main)


if __name__ == "__main__":
    run()
