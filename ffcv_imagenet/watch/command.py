"""The command line of the watch."""

from __future__ import annotations

import argparse
import contextlib
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ffcv_imagenet.names import shown
from ffcv_imagenet.script import OneLineParser
from ffcv_imagenet.watch.standings import Standing, Watcher, summary
from ffcv_imagenet.watch.table import line, table

if TYPE_CHECKING:
    from rich.console import Console

#: Seconds between two looks at the folders, and between two loads of the page.
LOOK_SECONDS, PAGE_SECONDS = 2.0, 10


def main(argv: Sequence[str]) -> None:
    """Show how runs stand until Ctrl-C, or once.

    Raises:
        ValueError: wrong arguments.
        OSError: a folder that is not there, a page that cannot be written, a port that cannot be listened on.
    """
    arguments = _parse(argv)
    watcher = Watcher(arguments.folders)
    with _page(arguments.html, arguments.folders) as update_page:
        if arguments.once:
            standings = watcher.look()
            update_page(standings)
            print("\n".join([*map(line, standings), summary(standings)]))
            return
        from rich.console import Console

        with contextlib.suppress(KeyboardInterrupt):
            _watch(watcher, update_page, Console())


def _watch(watcher: Watcher, update_page: Callable[[Sequence[Standing]], None], console: Console) -> None:
    """Look again and again: a table on a terminal, elsewhere a line for a run whenever its epoch or state changes."""
    if not console.is_terminal:
        told: dict[Path, tuple[str, int]] = {}
        while True:
            standings = watcher.look()
            update_page(standings)
            for standing in standings:
                now = (standing.state, standing.run.epochs_done if standing.run else 0)
                if told.get(standing.folder) != now:
                    told[standing.folder] = now
                    print(f"{time.strftime('%H:%M:%S')} {line(standing)}", flush=True)
            time.sleep(LOOK_SECONDS)
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        while True:
            standings = watcher.look()
            update_page(standings)
            rows = console.height - 3  # its header, the line below, the cursor
            live.update(table(standings, rows, console.width), refresh=True)
            time.sleep(LOOK_SECONDS)


@contextlib.contextmanager
def _page(target: str | None, folders: Sequence[Path]) -> Iterator[Callable[[Sequence[Standing]], None]]:
    """What keeps the page up to date: nothing, a file that is written anew, or a server on this machine."""
    if target is None:
        yield lambda standings: None
    elif target.isdigit():
        from ffcv_imagenet.watch.server import serve

        with serve(int(target), Watcher(folders), PAGE_SECONDS) as port:
            print(
                f"page: http://localhost:{port} (from elsewhere: ssh -L {port}:localhost:{port} {platform.node()})",
                flush=True,
            )
            yield lambda standings: None
    else:
        from ffcv_imagenet.report.output import save
        from ffcv_imagenet.watch.page import render_page

        written = [float("-inf")]

        def update(standings: Sequence[Standing]) -> None:
            if time.monotonic() - written[0] >= PAGE_SECONDS:
                save(Path(target), render_page(standings, PAGE_SECONDS).encode())
                written[0] = time.monotonic()

        print(f"page: {shown(target)}", flush=True)
        yield update


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = OneLineParser(
        prog="python -m ffcv_imagenet.watch",
        description="Show how runs stand while they train: a live table on a terminal, elsewhere a line for each epoch "
        "that ends. Ctrl-C ends it.",
    )
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        metavar="FOLDER",
        default=[Path("runs")],
        help="run folder, or a folder of run folders (default: runs)",
    )
    parser.add_argument(
        "--html",
        metavar="FILE|PORT",
        help="a page with curves that refreshes itself: kept in a file, or served on this machine's port",
    )
    parser.add_argument("--once", action="store_true", help="a line for each run, and end")
    arguments = parser.parse_args(argv)
    if arguments.once and arguments.html and arguments.html.isdigit():
        parser.error(f"--once: got --html={arguments.html}, a page that is served; allowed is --html=FILE")
    return arguments
