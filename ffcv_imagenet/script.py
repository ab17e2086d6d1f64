"""How every command begins and ends: its output, exit statuses, and a user's mistake as one line."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ffcv_imagenet.hints import unknown_arguments
from ffcv_imagenet.names import shown

#: Exit status of an entry script after a user's mistake.
USER_ERROR_STATUS = 2

#: Exit status of a training that a signal of the system has stopped, with everything saved: start it again (sysexits.h
#: calls it EX_TEMPFAIL).
REQUEUE_STATUS = 75

#: Exit status after Ctrl-C.
INTERRUPTED_STATUS = 130


#: What makes a command print its options, for :mod:`ffcv_imagenet.completion`.
PRINT_OPTIONS = "--print-options"


class OneLineParser(argparse.ArgumentParser):
    """A parser whose mistakes are ValueErrors, which :func:`run_script` shows as one line, and with ``--help=SECTION``.

    An option is known by its whole name only. One that is not there is told with the nearest.
    """

    def __init__(self, **options: Any):
        super().__init__(**options | {"add_help": False, "allow_abbrev": False})
        #: Words that an option may have, where they are not its choices: ``{"section.name": words}``.
        self.words: dict[str, Sequence[str]] = {}
        self.add_argument(PRINT_OPTIONS, nargs=0, action=_PrintOptions, help=argparse.SUPPRESS)
        self._help = self.add_argument("-h", "--help", nargs="?", metavar="SECTION", action=_HelpAction)

    @property
    def option_names(self) -> list[str]:
        """All options with a long name, without the dashes."""
        names = (name for action in self._actions for name in action.option_strings)
        return [name.removeprefix("--") for name in names if name.startswith("--") and name != PRINT_OPTIONS]

    @property
    def sections(self) -> dict[str, argparse._ArgumentGroup]:
        """The groups of options that have a name of their own, by it."""
        return {group.title: group for group in self._action_groups[2:] if group.title}

    def format_help(self) -> str:
        """All of the help."""
        sections = f", or one section of it: {' | '.join(self.sections)}" if self.sections else ""
        self._help.help = f"show this help{sections}"
        return super().format_help()

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The arguments; raises ValueError on a mistake, and on all unknown ones together."""
        arguments, unknown = self.parse_known_args(args, namespace)
        if unknown:
            raise ValueError("; ".join(unknown_arguments(unknown, self.option_names)))
        return arguments

    def error(self, message: str) -> NoReturn:
        """Raise ValueError."""
        raise ValueError(f"{message} (see --help)")


class _PrintOptions(argparse.Action):
    """Prints all options as JSON: the words that each may have, null for one without a value."""

    def __init__(self, **options: Any):
        super().__init__(**options | {"dest": argparse.SUPPRESS, "default": argparse.SUPPRESS})

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """See :class:`argparse.Action`."""
        found: dict[str, list[str] | None] = {}
        for action in parser._actions:
            for name in action.option_strings:
                if name.startswith("--") and name != PRINT_OPTIONS:
                    words = parser.words.get(name.removeprefix("--"), action.choices or ())
                    found[name] = None if action.nargs in (0, "?") else list(words)
        print(json.dumps(found))
        parser.exit()


class _HelpAction(argparse.Action):
    """Prints the help, or one section of it, and ends the program."""

    def __init__(self, **options: Any):
        super().__init__(**options | {"dest": argparse.SUPPRESS, "default": argparse.SUPPRESS})

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """See :class:`argparse.Action`."""
        if values is None:
            parser.print_help()
        elif values in parser.sections:
            group = parser.sections[values]
            formatter = parser.formatter_class(prog=parser.prog)
            formatter.start_section(group.title)
            formatter.add_text(group.description)
            formatter.add_arguments(group._group_actions)
            formatter.end_section()
            print(formatter.format_help(), end="")
        else:
            allowed = f"--help={' | '.join(parser.sections)}" if parser.sections else "--help alone"
            raise ValueError(f"--help: got {values}, allowed is {allowed}")
        parser.exit()


def run_script(main: Callable[[Sequence[str]], None]) -> None:
    """Run an entry script's ``main(argv)``; a user's mistake becomes one line on stderr and exit status 2.

    So does what the machine refuses (a full disk, a file without permission). With FFCV_IMAGENET_TRACEBACK=1 in the
    environment the traceback is shown instead.
    """
    keep_output()
    try:
        main(sys.argv[1:])
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("FFCV_IMAGENET_TRACEBACK") == "1":
            raise
        rank = os.environ.get("RANK", "0")
        lines = to_paste(_told(error)).split("\n")
        text = "\n".join(map(shown, lines))  # the names in it may hold anything
        print(f"error: {text}" if rank == "0" else f"error on rank {rank}: {text}", file=sys.stderr)
        sys.exit(USER_ERROR_STATUS)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED_STATUS)


def _told(error: Exception) -> str:
    """What an exception says; one of the system with its file first, and without its number."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        name = error.filename if isinstance(error.filename, (str, os.PathLike)) else repr(error.filename)
        return f"{os.fspath(name)}: {error.strerror}"
    return str(error)


def to_paste(message: str) -> str:
    """A message whose options (``section.name: got ...``, ``section.name=...``) have the dashes of the command line."""
    return re.sub(r"(?<![\w./-])(?=[a-z]+\.[a-z_]+(: got |=))", "--", message)


def command_line(argv: Sequence[str]) -> list[str]:
    """The words after ``python`` that started this program with the arguments ``argv``: a file's, or ``-m MODULE``."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return [*([sys.argv[0]] if spec is None else ["-m", spec.name.removesuffix(".__main__")]), *argv]


class _LossyFile(io.FileIO):
    """A file descriptor to write to, which takes what cannot be written as written."""

    def write(self, data: Any) -> int:
        """Write ``data`` if that is possible; returns how many bytes of it were written or left out."""
        try:
            written = super().write(data)
        except OSError:
            written = None
        return len(data) if written is None else written


def keep_output() -> None:
    """From now on, a line that cannot be printed is left out: the disk is full, or the pipe has no reader any more.

    A training is worth more than its output, which its log holds too. Standard streams that are closed become
    /dev/null, so that no other file gets their number, to which libraries print.
    """
    null = os.open(os.devnull, os.O_RDWR)
    while null <= 2:
        os.set_inheritable(null, True)
        null = os.dup(null)
    os.close(null)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.TextIOWrapper(_LossyFile(number, "w", closefd=False), "utf-8", write_through=True))
        elif stream is getattr(sys, f"__{name}__"):
            raw = _LossyFile(number, "w", closefd=False)
            kept = io.TextIOWrapper(
                raw if stream.write_through else io.BufferedWriter(raw),
                stream.encoding,
                stream.errors,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, kept)
