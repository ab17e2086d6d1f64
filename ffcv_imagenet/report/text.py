"""The table for a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from ffcv_imagenet.report.comparison import Comparison
from ffcv_imagenet.report.measured import MeasuredTable
from ffcv_imagenet.report.paper import Pair
from ffcv_imagenet.report.table import TableRow, ks, seeds_text

MISSING = "-"


def format_table(rows: Sequence[TableRow], markdown: bool = False) -> str:
    """The rows of :func:`~ffcv_imagenet.report.table.table` as aligned text for a terminal, or as a Markdown table."""
    columns = {
        "architecture": [row.architecture for row in rows],
        "recipe": [row.recipe for row in rows],
        "loss": [row.loss for row in rows],
        "differs in": [row.differs_in for row in rows],
        "seeds": [seeds_text(row) for row in rows],
        "top-1 last (%)": [_spread_text(row.top_1_percent, row.top_1_sd_percent) for row in rows],
        "top-1 best (%)": [_number_text(row.best_top_1_percent, 2) for row in rows],
        **{
            f"top-{k} last (%)": [_number_text(row.top_k_percent if row.k == k else None, 2) for row in rows]
            for k in ks(rows)
        },
        "epochs": [str(row.epochs) for row in rows],
        "time (min)": [_number_text(row.minutes, 1 if (row.minutes or 0) >= 10 else 2) for row in rows],
        "images/s": [_number_text(row.images_per_second, 0) for row in rows],
        "notes": [row.notes for row in rows],
    }
    return _align(columns, {"architecture", "recipe", "loss", "differs in", "notes"}, markdown)


def format_published(pairs: Iterable[Pair], markdown: bool = False) -> str:
    """Our rows next to the published ones as aligned text for a terminal, or as a Markdown table."""
    rows = list(pairs)
    columns = {
        "architecture": [row.architecture for row in rows],
        "loss": [row.loss for row in rows],
        "recipe": [row.ours.group.recipe if row.ours else MISSING for row in rows],
        "differs in": [row.ours.group.differs_in if row.ours else "" for row in rows],
        "epochs": [str(row.ours.group.runs[0].epochs) if row.ours else MISSING for row in rows],
        "runs": [str(len(row.ours.group.finished)) if row.ours else "0" for row in rows],
        "ours, top-1 (%)": [_spread_text(*_mean_and_sd(row.ours)) for row in rows],
        "published, top-1 (%)": [
            _spread_text(row.published.top_1, row.published.sd) if row.published else MISSING for row in rows
        ],
    }
    return _align(columns, {"architecture", "loss", "recipe", "differs in"}, markdown)


def format_measured(table: MeasuredTable, labels: Sequence[str], markdown: bool = False) -> str:
    """A measurement of groups of runs, named ``labels``, as aligned text or as a Markdown table."""
    columns = {"figure": [row.figure for row in table.rows]}
    for number, (label, seeds) in enumerate(zip(labels, table.seeds, strict=True)):
        columns[f"{label} (seeds: {seeds})"] = [row.texts[number] for row in table.rows]
    return _align(columns, {"figure"}, markdown)


def _mean_and_sd(comparison: Comparison | None) -> tuple[float | None, float | None]:
    mean = comparison.mean if comparison else None
    return (mean.mean, mean.sd) if mean else (None, None)


def _align(columns: dict[str, list[str]], text_columns: Container[str], markdown: bool) -> str:
    """Columns of cells as aligned lines; those of ``text_columns`` stand on the left, numbers on the right.

    "differs in" is there only where a row differs.
    """
    columns = {header: cells for header, cells in columns.items() if header != "differs in" or any(cells)}
    if markdown:
        columns = {header: [cell.replace("|", r"\|") for cell in cells] for header, cells in columns.items()}
    widths = {header: max(map(len, [header, *cells])) for header, cells in columns.items()}

    def line(cells: Iterable[str]) -> str:
        padded = [
            cell.ljust(widths[header]) if header in text_columns else cell.rjust(widths[header])
            for header, cell in zip(columns, cells, strict=True)
        ]
        return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()

    rules = []
    for header, width in widths.items():
        right = markdown and header not in text_columns
        rules.append("-" * (width - 1) + ":" if right else "-" * width)
    return "\n".join([line(columns), line(rules), *map(line, zip(*columns.values(), strict=True))])


def _number_text(value: float | None, decimals: int) -> str:
    return MISSING if value is None else f"{value:.{decimals}f}"


def _spread_text(mean: float | None, sd: float | None) -> str:
    return MISSING if mean is None else f"{mean:.2f} ± {_number_text(sd, 2)}"
