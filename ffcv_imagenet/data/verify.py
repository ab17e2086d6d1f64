"""Is a .beton file whole?

    python -m ffcv_imagenet.data.verify FILE.beton ... [--decode]

Exit status 0: yes; 2: no, and one line says what is wrong, with the first bad sample if it can be told.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ffcv_imagenet.data.format.beton import Samples, read_samples
from ffcv_imagenet.data.format.index import EntryIndex, verify_index
from ffcv_imagenet.data.format.manifest import WITHOUT_MANIFEST, Manifest
from ffcv_imagenet.names import shown
from ffcv_imagenet.progress import Progress
from ffcv_imagenet.script import OneLineParser, run_script

#: Images that are decoded at a time.
_BATCH = 256


def verify(beton: Path, *, decode: bool = False) -> str:
    """Check a .beton file completely: its tables, its checksum, its index if there is one, and all images.

    Args:
        beton: the file. Without a manifest only its tables and, with ``decode``, its images can be checked.
        decode: decode every image in full, on all cores.

    Returns:
        What was found, in a line.

    Raises:
        FileNotFoundError: no such file.
        ValueError: what is wrong with it.
    """
    manifest = Manifest.read(beton) if Manifest.path(beton).is_file() else None
    samples = read_samples(beton, manifest)
    checked = ["tables"]
    if decode:  # before the checksum, which cannot tell where a file has changed
        from ffcv_imagenet.data.read.decode_cpu import error_message

        content = np.memmap(beton, np.uint8, mode="r")
        with Progress(f"decoding {beton.name}", len(samples.size), "images") as progress:
            for indices, _, codes in decode_whole(samples, content):
                if codes.any():
                    sample = int(indices[np.flatnonzero(codes)[0]])
                    reason = error_message(codes[codes != 0][0])
                    raise ValueError(f"{beton} is damaged: {_describe(sample, samples, manifest)}: {reason}")
                progress.update(len(indices))
        checked.append("every image decoded")
    what = f"{len(samples.size)} images"
    if manifest is None:
        return (
            f"{shown(beton)} ({what}): no fault found ({', '.join(checked)}); it has no manifest, so that nothing "
            f"tells changed labels and pixels from right ones: {WITHOUT_MANIFEST}"
        )
    try:
        manifest.verify(beton)
    except ValueError as error:
        more = "every image decodes, some into other pixels" if decode else "--decode looks for an image that is broken"
        raise ValueError(f"{error}; {more}") from None
    checked.append("checksum")
    if EntryIndex.path(beton).is_file():
        verify_index(beton)
        checked.append("index")
    return f"{shown(beton)} ({what} of {manifest.num_classes} classes) is whole: {', '.join(checked)}"


def decode_whole(
    samples: Samples, content: np.ndarray, resolution: int = 8
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Decode whole images, as training would do it, in the order of their indices.

    Args:
        samples: of the file.
        content: all bytes of the file, uint8.
        resolution: side to which every image is resized, in pixels.

    Yields:
        [B] sample indices, [B, resolution, resolution, 3] uint8 pixels (valid until the next are asked for), and
        [B] error codes, see :func:`decode_cpu.error_message`.
    """
    # FFCV, numba and torch: seconds that a check without decoding need not wait.
    import numba

    from ffcv_imagenet.data.read.beton_file import Storage
    from ffcv_imagenet.data.read.decode_cpu import CenterCropDecoder

    cores = len(os.sched_getaffinity(0))
    numba.set_num_threads(min(cores, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    decoder = CenterCropDecoder(resolution)
    decoder.metadata = samples.image
    storage = Storage.of(content, samples)
    batch = np.empty((_BATCH, resolution, resolution, 3), np.uint8)
    codes = np.empty((_BATCH, 1), np.int32)
    for first in range(0, len(samples.size), _BATCH):
        indices = np.arange(first, min(first + _BATCH, len(samples.size)))
        count = len(indices)
        boxes = np.zeros((count, 5), np.int32)
        boxes[:, 2], boxes[:, 3] = samples.height[indices], samples.width[indices]
        decoder.decode(indices, boxes, batch[:count], codes[:count], storage)
        yield indices, batch[:count], codes[:count, 0]


def _describe(sample: int, samples: Samples, manifest: Manifest | None) -> str:
    first = int(samples.pointer[sample])
    label = int(samples.label[sample])
    name = label if manifest is None else repr(manifest.classes[label])
    return f"sample {sample} (bytes {first} to {first + int(samples.size[sample]) - 1}, class {name})"


def main(argv: Sequence[str]) -> None:
    """``python -m ffcv_imagenet.data.verify FILE.beton ... [--decode]``."""
    parser = OneLineParser(
        prog="python -m ffcv_imagenet.data.verify",
        description="Check .beton files completely: tables, checksum, index. Exit status 2 when one is damaged.",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.beton")
    parser.add_argument("--decode", action="store_true", help="also decode every image, and name the first bad one")
    arguments = parser.parse_args(argv)
    for beton in arguments.files:
        print(verify(beton, decode=arguments.decode))


if __name__ == "__main__":
    run_script(main)
