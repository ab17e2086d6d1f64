"""What to say of an option that is not there: its name here, or the nearest one."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from ffcv_imagenet.elsewhere import called_here

#: Likeness from which a name counts as a slip of the fingers.
_NEAR = 0.7


def hint(word: str, known: Collection[str]) -> str:
    """What may have been meant by ``--some.name=value`` (or ``some.name``).

    Args:
        word: that is no option.
        known: names of the options that there are, without dashes.

    Returns:
        What another program's option is called here, else the nearest name, else where all of them are listed.
    """
    key, has_value, value = word.lstrip("-").partition("=")
    if found := called_here(key, known, value if has_value else None):
        return found

    def likeness(name: str) -> float:
        # Of "epochs" and "train.epochs" the part after the point counts more than the section.
        parts = (key, name), (key.rpartition(".")[2], name.rpartition(".")[2])
        whole, last = (difflib.SequenceMatcher(None, *pair).ratio() for pair in parts)
        return max(whole, 0.9 * last)

    inside = [name for name in known if name.startswith(f"{key}.")]  # of a section, the option that it is about
    about = [name for name in inside if name in (f"{key}.name", f"{key}.{key}")] or inside
    if len(about) == 1:
        return f"did you mean --{about[0]}?"
    nearest = max(known, key=likeness, default=None)
    if nearest is not None and likeness(nearest) > _NEAR:
        return f"did you mean --{nearest}?"
    return "--help lists all options"


def unknown_arguments(words: list[str], known: Collection[str]) -> list[str]:
    """A sentence for each of the words that a parser has left over; a value is told with its option only."""
    options = [word for word in words if word.startswith("-")] or words[:1]
    return [f"unknown argument {word!r} ({hint(word, known)})" for word in options]
