"""What a shell completes for ``ffcv-imagenet``: a script for bash or zsh, made of all commands' options.

The script holds everything, so that completing does not start Python. Each command tells its options itself
(:data:`~ffcv_imagenet.script.PRINT_OPTIONS`).
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ffcv_imagenet.script import PRINT_OPTIONS

#: Commands that take the options of another one, too.
_TAKES_ALSO = {"sweep": "train", "analysis": "train"}

#: Files that stand for a command after torchrun.
_FILES = {"train_imagenet.py": "train", "write_datasets.py": "write"}

#: An option's words: None for a switch, which has no value; empty: any text, such as a file.
Options = Mapping[str, Sequence[str] | None]

_BASH = """\
# Completes ffcv-imagenet, and what torchrun starts. In ~/.bashrc: source THIS_FILE
{functions}
_ffcv_imagenet() {
    local line=${COMP_LINE:0:COMP_POINT} command= option word
    local current=${line##*[[:space:]]} before
    COMPREPLY=()
    read -ra before <<< "${line%"$current"}"
    for word in "${before[@]}"; do
        [ -n "$command" ] || command=$(_ffcv_imagenet_command "$word")
    done
    if [ -z "$command" ]; then
        [ "$1" = torchrun ] || COMPREPLY=($(compgen -W "{commands}" -- "$current"))
    elif [[ $current == --*=* ]]; then
        option=${current%%=*}
        COMPREPLY=($(compgen -W "$(_ffcv_imagenet_values "$command" "$option")" -- "${current#*=}"))
        # readline completes what follows the last of its word breaks.
        [[ $COMP_WORDBREAKS == *=* ]] || COMPREPLY=("${COMPREPLY[@]/#/$option=}")
    elif [[ $current == -* ]]; then
        COMPREPLY=($(compgen -W "$(_ffcv_imagenet_options "$command")" -- "$current"))
        [[ ${COMPREPLY[0]} != *= ]] || compopt -o nospace 2>/dev/null
    fi
}
complete -o default -F _ffcv_imagenet ffcv-imagenet torchrun
"""

_ZSH = """\
#compdef ffcv-imagenet torchrun
# Completes ffcv-imagenet, and what torchrun starts. In ~/.zshrc, after compinit: source THIS_FILE
{functions}
_ffcv_imagenet() {
    local command= word option
    local -a found
    for word in "${(@)words[1,CURRENT-1]}"; do
        [ -n "$command" ] || command=$(_ffcv_imagenet_command "$word")
    done
    if [ -z "$command" ]; then
        if [ "$words[1]" = torchrun ]; then _files; else compadd -- {commands}; fi
    elif [[ $words[CURRENT] == --*=* ]]; then
        option=${words[CURRENT]%%=*}
        found=(${=$(_ffcv_imagenet_values "$command" "$option")})
        compset -P '*='
        compadd -- $found || _files
    elif [[ $words[CURRENT] == -* ]]; then
        found=(${=$(_ffcv_imagenet_options "$command")})
        compadd -S '' -- ${(M)found:#*=}
        compadd -- ${found:#*=}
    else
        _files
    fi
}
compdef _ffcv_imagenet ffcv-imagenet torchrun
"""

#: The scripts by the shell's name.
SHELLS = {"bash": _BASH, "zsh": _ZSH}


def script(shell: str, commands: Sequence[str]) -> str:
    """The completion script for all ``commands``, which are modules of the package.

    Raises:
        ValueError: a shell that is none of :data:`SHELLS`.
    """
    if shell not in SHELLS:
        raise ValueError(f"--print-completion: got {shell!r}, allowed is {' | '.join(SHELLS)}")
    options = {command: options_of_command(command) for command in commands}
    for command in options.keys() & _TAKES_ALSO.keys():
        options[command] = {**options_of_command(_TAKES_ALSO[command]), **options[command]}
    text = SHELLS[shell].replace("{functions}", _functions(options))
    return text.replace("{commands}", " ".join(commands))


def options_of_command(command: str) -> Options:
    """All options of a command, as it tells them."""
    place = Path(__file__).parent / command.replace(".", "/")
    inside = ".command" if (place / "command.py").is_file() else ".__main__" if place.is_dir() else ""
    module = importlib.import_module(f"ffcv_imagenet.{command}{inside}")
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
        module.main([PRINT_OPTIONS])
    return json.loads(told.getvalue())


def _functions(options: Mapping[str, Options]) -> str:
    """Functions for both shells that print the command of a word, the options of a command, the values of an option."""
    commands = [f"    {name} | ffcv_imagenet.{name}) echo {name} ;;" for name in options]
    commands += [f"    {file} | */{file}) echo {name} ;;" for file, name in _FILES.items()]
    names, values = [], []
    for command, its in options.items():
        listed = " ".join(name if words is None else f"{name}=" for name, words in its.items())
        names.append(f'    {command}) echo "{listed}" ;;')
        values += [f'    "{command} {name}") echo "{" ".join(words)}" ;;' for name, words in its.items() if words]
    parts = {"command": ("$1", commands), "options": ("$1", names), "values": ('"$1 $2"', values)}
    return "\n".join(
        f"_ffcv_imagenet_{part}() {{\n    case {subject} in\n" + "\n".join(cases) + "\n    esac\n}"
        for part, (subject, cases) in parts.items()
    )
