"""The command line of the report."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ffcv_imagenet.report.comparison import compare
from ffcv_imagenet.report.groups import group_runs
from ffcv_imagenet.report.output import save
from ffcv_imagenet.report.page import render_page
from ffcv_imagenet.report.paper import PAPER_NOTE, beside_published
from ffcv_imagenet.report.runs import load_runs
from ffcv_imagenet.report.text import format_published, format_table, table


def main(argv: Sequence[str]) -> None:
    """Print the table of the runs in the given folders and write the files asked for.

    Raises:
        ValueError: wrong arguments, a folder without runs, or a file that cannot be understood.
        FileNotFoundError: a folder that is not there.
    """
    parser = _Parser(prog="python -m ffcv_imagenet.report", description="Compare runs in a table, a page and a plot.")
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="run folder, or a folder of run folders")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="save a page with table, tests, charts and parameters"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="save the table with full precision")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="save the table as Markdown")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="save top-1 over epochs and over minutes")
    parser.add_argument("--compare", choices=["paper"], help="set the rows beside the MaxSup paper's published ones")
    arguments = parser.parse_args(argv)

    runs = load_runs(arguments.folders)
    frame = table(runs)
    print(format_table(frame))
    print("\nFigures: mean over finished runs; top-1 last: ± sample standard deviation (from 2 runs on).")
    for run in runs:
        if not run.finished:
            reason = f": {' '.join(run.error.split())}" if run.error else ""
            print(f"Not in the figures: {run.folder} ({run.progress}){reason}")
    markdown = format_table(frame, markdown=True)
    if arguments.compare:
        pairs = beside_published(compare(group_runs(runs)))
        print(f"\n{format_published(pairs)}\n\n{PAPER_NOTE}")
        markdown += f"\n\n{format_published(pairs, markdown=True)}\n\n{PAPER_NOTE}"
    if arguments.csv:
        save(arguments.csv, frame.to_csv(index=False).encode())
    if arguments.markdown:
        save(arguments.markdown, f"{markdown}\n".encode())
    if arguments.html:
        save(arguments.html, render_page(runs, with_published=bool(arguments.compare)).encode())
    if arguments.plot:
        from ffcv_imagenet.report.figure import plot  # matplotlib takes half a second to import

        plot(runs, arguments.plot)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see --help)")
