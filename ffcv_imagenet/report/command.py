"""The command line of the report."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from ffcv_imagenet.report.comparison import compare
from ffcv_imagenet.report.groups import Group, families, group_runs
from ffcv_imagenet.report.measured import measured_tables
from ffcv_imagenet.report.output import save
from ffcv_imagenet.report.paper import MEASURED_NOTE, PAPER_NOTE, beside_published
from ffcv_imagenet.report.planning import plan_from_runs, plan_from_sd
from ffcv_imagenet.report.runs import load_runs
from ffcv_imagenet.report.table import table_row, to_csv
from ffcv_imagenet.report.text import format_measured, format_published, format_table
from ffcv_imagenet.script import OneLineParser


def main(argv: Sequence[str]) -> None:
    """Print the table of the runs in the given folders and write the files asked for.

    Run folders that cannot be understood are named on stderr and left out.

    Raises:
        ValueError: wrong arguments, a folder without runs, or no run that can be understood.
        FileNotFoundError: a folder that is not there.
    """
    arguments = _parse(argv)
    if arguments.plan is not None and arguments.sd is not None:
        print(plan_from_sd(arguments.plan, arguments.sd))
    if not arguments.folders:
        return
    runs, left_out = load_runs(arguments.folders)
    for damaged in left_out:
        print(f"warning: {damaged.folder} is left out: {damaged.reason}", file=sys.stderr)
    comparisons = compare(group_runs(runs))
    if arguments.plan is not None:
        if arguments.sd is None:
            print(plan_from_runs(arguments.plan, comparisons))
        print()
    rows = list(map(table_row, comparisons))
    print(format_table(rows))
    print(
        "\nFigures: mean over finished runs; top-1 last: ± sample standard deviation over seeds (from 2 on; the runs "
        "of one seed count as their mean)."
    )
    for run in runs:
        if not run.finished:
            reason = f": {' '.join(run.error.split())}" if run.error else ""
            print(f"Not in the figures: {run.folder} ({run.progress}){reason}")
    markdown = format_table(rows, markdown=True)
    if arguments.compare:
        pairs = beside_published(comparisons)
        print(f"\n{format_published(pairs)}\n\n{PAPER_NOTE}")
        markdown += f"\n\n{format_published(pairs, markdown=True)}\n\n{PAPER_NOTE}"
    if arguments.csv:
        save(arguments.csv, to_csv(rows).encode())
    if arguments.markdown:
        markdown += _measured([c.group for c in comparisons], with_published=bool(arguments.compare))
        save(arguments.markdown, f"{markdown}\n".encode())
    if arguments.html:
        from ffcv_imagenet.report.page import render_page  # jinja2 and matplotlib only where they are used

        save(arguments.html, render_page(runs, left_out, with_published=bool(arguments.compare)).encode())
    if arguments.plot:
        from ffcv_imagenet.report.figure import plot

        plot(runs, arguments.plot)


def _measured(groups: Sequence[Group], *, with_published: bool) -> str:
    """What was measured of the runs, in Markdown: a table for each measurement of an architecture and recipe."""
    text = ""
    for family in families(groups, of=lambda group: group):
        labels = [f"{group.loss}, {group.differs_in}" if group.differs_in else group.loss for group in family]
        for table in measured_tables(family, with_published):
            title = f"{table.title} ({family[0].architecture}, recipe {family[0].recipe})"
            text += f"\n\n## {title}\n\n{table.caption}\n\n{format_measured(table, labels, markdown=True)}"
            text += f"\n\n{MEASURED_NOTE}" if table.has_published else ""
    return text


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = OneLineParser(
        prog="python -m ffcv_imagenet.report", description="Compare runs in a table, a page and a plot."
    )
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="run folder, or a folder of run folders")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="save a page with table, tests, charts and parameters"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="save the table with full precision")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="save the table, and what the runs were measured for, as Markdown"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="save top-1 over epochs and over minutes")
    parser.add_argument("--compare", choices=["paper"], help="set the rows next to the MaxSup paper's published ones")
    parser.add_argument(
        "--plan",
        type=_positive,
        metavar="DIFFERENCE",
        help="say how many seeds it takes to find a difference of so many percentage points",
    )
    parser.add_argument(
        "--sd",
        type=_positive,
        metavar="POINTS",
        help="with --plan: standard deviation of top-1 over seeds, in place of that of the runs",
    )
    arguments = parser.parse_args(argv)
    if arguments.sd is not None and arguments.plan is None:
        parser.error("--sd goes with --plan=DIFFERENCE")
    files = ("html", "csv", "markdown", "plot", "compare")
    if not arguments.folders and (arguments.sd is None or any(getattr(arguments, file) for file in files)):
        parser.error("no folder given, allowed are one or more, or none with --plan=DIFFERENCE --sd=POINTS")
    return arguments


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"got {text}, allowed is a number above 0")
