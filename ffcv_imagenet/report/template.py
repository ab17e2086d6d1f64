"""What the pages of runs have in common: how templates are read, and the style sheet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ffcv_imagenet.report.palette import DARK_COLOURS, LIGHT_COLOURS

STYLE_FILE = Path(__file__).with_name("page.css")


def page_environment(folder: Path, filters: Mapping[str, Callable[..., Any]] | None = None) -> Environment:
    """Jinja for the templates in ``folder``: all texts are escaped; ``filters`` write figures."""
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= filters or {}
    return environment


def style_sheet() -> Markup:
    """The pages' style sheet, with the colours of the charts in light and dark."""

    def colours(of: Sequence[str]) -> str:
        return "".join(f".c{index}{{color:{colour}}}" for index, colour in enumerate(of))

    return Markup(
        f"{STYLE_FILE.read_text()}{colours(LIGHT_COLOURS)}\n"
        f"@media screen and (prefers-color-scheme:dark){{{colours(DARK_COLOURS)}}}\n"
    )
