"""Names of files, classes and folders as a terminal may show them."""

from __future__ import annotations

import os


def shown(name: str | os.PathLike[str]) -> str:
    """A name with line breaks, escape sequences and bytes that are not text written as ``\\n``, ``\\x1b``, ``\\xff``.

    A name on disk can be any bytes. Those that are not UTF-8, which Python keeps as surrogates, can't be
    printed either.
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in os.fspath(name))


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
