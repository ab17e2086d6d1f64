"""Folders of images as data sets: written as .beton files for the length of a command."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ffcv_imagenet.analysis.measurement import DataSet
from ffcv_imagenet.data.format.manifest import WriteParameters
from ffcv_imagenet.data.sources.folder import ImageFolder, scan_folder
from ffcv_imagenet.data.write.pages import page_size_of_bytes, page_size_of_pixels
from ffcv_imagenet.data.write.parameters import resolve_parameters
from ffcv_imagenet.data.write.splits import write_sources
from ffcv_imagenet.distributed import World, gather, on_main
from ffcv_imagenet.names import shown

_JPEG = (".jpg", ".jpeg")


@contextlib.contextmanager
def opened(places: Sequence[str], world: World) -> Iterator[dict[str, DataSet]]:
    """The data sets at ``places``, each a .beton file or a folder ``<class>/**/<image>``, by place.

    A folder is written by rank 0 to a temporary one (TMPDIR), which is removed at the end. The file is the same, byte
    for byte, every time, so that results know it again by its checksum. The same call on every rank.

    Raises:
        ValueError, OSError: as :meth:`Manifest.read`, :func:`scan_folder` and :func:`write_sources` raise.
    """
    with contextlib.ExitStack() as stack:
        found = {}
        for place in dict.fromkeys(places):
            path = Path(place)
            if path.is_dir():
                path = Path(on_main(world, lambda p=path: _write(p, stack)))  # type: ignore[misc]
            found[place] = DataSet.read(path, Path(place))
        yield found
        if any(data.path != data.place for data in found.values()):
            gather(None)  # Rank 0 removes the files only when nobody reads them any more.


def _write(folder: Path, stack: contextlib.ExitStack) -> str:
    source = scan_folder(folder)
    out = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ffcv_imagenet_")))
    print(f"{shown(folder)}: a folder of images, written as a .beton for this command (TMPDIR says where)", flush=True)
    write_sources({"val": source}, out, _parameters(source))
    return str(out / "val.beton")


def _parameters(source: ImageFolder) -> WriteParameters:
    """JPEG files stay as they are; in a folder of other images, or of both kinds, all are stored as pixels."""
    files = [source.where(number) for number in range(len(source.files))]
    if all(file.lower().endswith(_JPEG) for file in files):
        # What is no JPEG in spite of its name, or one of a rare kind, is stored as the best there is.
        largest = max(os.stat(file).st_size for file in files)  # noqa: PTH116 (a text)
        return resolve_parameters(
            mode="jpg", reencode=False, jpeg_quality=100, page_size_mib=max(8, page_size_of_bytes(largest))
        )
    return resolve_parameters(mode="raw", page_size_mib=max(8, page_size_of_pixels(files)))
