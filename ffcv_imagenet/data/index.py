"""``python -m ffcv_imagenet.data.index FILE.beton ...`` makes or checks entry-point indices."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ffcv_imagenet.data.format.index import EntryIndex, verify_index
from ffcv_imagenet.data.format.manifest import WITHOUT_MANIFEST, Manifest
from ffcv_imagenet.data.write.index import write_index
from ffcv_imagenet.names import shown
from ffcv_imagenet.script import OneLineParser, run_script


def main(argv: Sequence[str]) -> None:
    """``python -m ffcv_imagenet.data.index FILE.beton ...``."""
    parser = OneLineParser(
        prog="python -m ffcv_imagenet.data.index",
        description="Make the index FILE.beton.mcu: where decoding can start inside a JPEG, which is faster for crops.",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.beton")
    parser.add_argument("--verify", action="store_true", help="check an index that is there, completely, instead")
    parser.add_argument("--num-workers", type=int, default=0, help="threads (0: one per usable core)")
    arguments = parser.parse_args(argv)
    for beton in arguments.files:
        if arguments.verify:
            verify_index(beton)
            print(f"{shown(EntryIndex.path(beton))} is whole and belongs to {shown(beton)}")
            continue
        if not Manifest.path(beton).is_file() and beton.is_file():
            print(f"warning: {shown(beton)} has no manifest: {WITHOUT_MANIFEST}", file=sys.stderr)
        target = write_index(beton, arguments.num_workers)
        share = target.stat().st_size / beton.stat().st_size
        print(f"{shown(target)}: {target.stat().st_size} bytes, {100 * share:.1f} % of the .beton")


if __name__ == "__main__":
    run_script(main)
