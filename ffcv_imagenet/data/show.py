"""What is in a .beton file: numbers, and a picture of random samples and their training crops; or a training's batch.

python -m ffcv_imagenet.data.show FILE.beton [--sheet=SHEET.png] [--seed=0]
python -m ffcv_imagenet.data.show [--config-file RECIPE] --data.train=FILE.beton --data.val=FILE.beton [--sheet=PNG]
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.data.format.beton import Samples, read_samples
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.names import shown
from ffcv_imagenet.options import parse
from ffcv_imagenet.script import OneLineParser, run_script

#: Side of a picture in the sheet, in pixels; pictures in a row; how often the sheet has its three rows.
_SIDE, _COLUMNS, _GROUPS = 112, 10, 3


def describe(samples: Samples, manifest: Manifest | None) -> list[str]:
    """What is in a file, in lines."""
    count = np.bincount(samples.label, minlength=manifest.num_classes if manifest else 0)
    longest = np.maximum(samples.height, samples.width)
    shortest = np.minimum(samples.height, samples.width)
    lines = [f"{len(samples.size)} images in {len(count)} classes"]
    if manifest is not None:
        lines[0] += f"; split {manifest.split}, from {shown(manifest.source_folder) or '?'} ({manifest.source_format})"
    lines.append(f"images per class: {_spread(count)}")
    lines.append(f"longest side in pixels: {_spread(longest)}; shortest: {_spread(shortest)}")
    for name, chosen in (("JPEG", samples.is_jpeg), ("raw", ~samples.is_jpeg)):
        if chosen.any():
            share = 100 * chosen.mean()
            sizes = samples.size[chosen]
            lines.append(f"{name}: {chosen.sum()} images ({share:.1f} %), bytes per image: {_spread(sizes)}")
    for label in range(len(count)):
        name = f"class_{label}"
        if manifest is not None:
            called = f" ({manifest.class_names[label]})" if manifest.class_names else ""
            name = shown(manifest.classes[label] + called)
        lines.append(f"  {count[label]:8} {name}")
    return lines


def sheet(beton: Path, samples: Samples, seed: int = 0) -> Image.Image:
    """Random samples, and under each of them its training crops in two epochs."""
    # FFCV, numba and torch: seconds that the numbers need not wait.
    from ffcv_imagenet.data.read.beton_file import Storage
    from ffcv_imagenet.data.read.decode_cpu import RandomResizedCropDecoder, error_message

    content = np.memmap(beton, np.uint8, mode="r")
    total = len(samples.size)
    drawn = np.random.default_rng(seed).choice(total, min(total, _COLUMNS * _GROUPS), replace=False).astype(np.int64)
    decoder = RandomResizedCropDecoder(_SIDE, seed=seed)
    decoder.metadata = samples.image
    storage = Storage.of(content, samples)
    rows = -(-len(drawn) // _COLUMNS)  # rounded up
    whole = np.full((rows * 3 * _SIDE, _COLUMNS * _SIDE, 3), 255, np.uint8)

    def put(number: int, row: int, picture: np.ndarray) -> None:
        top, left = (number // _COLUMNS * 3 + row) * _SIDE, number % _COLUMNS * _SIDE
        whole[top : top + _SIDE, left : left + _SIDE] = picture

    for number, sample in enumerate(drawn.tolist()):
        put(number, 0, _thumbnail(samples, content, sample))
    for epoch in range(2):
        decoder.start_epoch(epoch, _SIDE)
        batch = np.empty((len(drawn), _SIDE, _SIDE, 3), np.uint8)
        codes = np.empty((len(drawn), 1), np.int32)
        decoder.decode(drawn, decoder.boxes(drawn), batch, codes, storage)
        for number, (picture, code) in enumerate(zip(batch, codes[:, 0], strict=True)):
            if code:
                raise ValueError(f"{beton} is damaged: sample {drawn[number]}: {error_message(code)}")
            put(number, epoch + 1, picture)
    return Image.fromarray(whole)


def _thumbnail(samples: Samples, content: np.ndarray, sample: int) -> np.ndarray:
    start, size = int(samples.pointer[sample]), int(samples.size[sample])
    data = content[start : start + size]
    if samples.is_jpeg[sample]:
        image = Image.open(io.BytesIO(data.tobytes())).convert("RGB")
    else:
        image = Image.fromarray(data.reshape(int(samples.height[sample]), int(samples.width[sample]), 3))
    scale = _SIDE / max(image.size)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    square = Image.new("RGB", (_SIDE, _SIDE), "white")
    square.paste(image, ((_SIDE - image.width) // 2, (_SIDE - image.height) // 2))
    return np.asarray(square)


def _spread(values: np.ndarray) -> str:
    low, middle, high = np.quantile(values, (0, 0.5, 1))
    return f"{low:.0f} to {high:.0f}, median {middle:.0f}"


def show_batch(argv: Sequence[str]) -> None:
    """``python -m ffcv_imagenet.data.show [--config-file RECIPE] --data.train=FILE.beton ...``."""
    parser = OneLineParser(
        prog="python -m ffcv_imagenet.data.show",
        description="Draw the first training images of an epoch as the network sees them, with their labels. "
        "All other arguments are those of train_imagenet.py.",
    )
    parser.add_argument("--sheet", type=Path, default=Path("batch.png"), help="PNG to draw (default: batch.png)")
    parser.add_argument("--epoch", type=int, default=0, help="from 0 (default: 0)")
    arguments, of_training = parser.parse_known_args(argv)
    config = parse(TrainConfig, of_training, "")

    from ffcv_imagenet.batch_sheet import draw_batch

    picture, mixed = draw_batch(config, arguments.epoch)
    picture.save(arguments.sheet, "PNG")
    print(f"the first training images of epoch {arguments.epoch}, {mixed}: {shown(arguments.sheet)}")


def main(argv: Sequence[str]) -> None:
    """``python -m ffcv_imagenet.data.show FILE.beton ...``, or :func:`show_batch`."""
    if any(word.startswith(("--config-file", "-C", "--data.")) for word in argv):
        return show_batch(argv)
    parser = OneLineParser(
        prog="python -m ffcv_imagenet.data.show",
        description="Tell what is in a .beton file, and draw random samples and their training crops. With "
        "options of train_imagenet.py (--config-file, --data.train, ...) instead of a file: draw the first training "
        "images of an epoch (--epoch=0) as the network sees them, with labels and mixing weights, into "
        "--sheet=batch.png.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.beton")
    parser.add_argument("--sheet", type=Path, help="PNG to draw: a row of samples, two rows of their training crops")
    parser.add_argument("--seed", type=int, default=0, help="draws the samples and the crops")
    arguments = parser.parse_args(argv)
    if arguments.seed < 0:
        raise ValueError(f"--seed: got {arguments.seed}, allowed is a whole number >= 0")
    manifest = Manifest.read(arguments.file) if Manifest.path(arguments.file).is_file() else None
    samples = read_samples(arguments.file, manifest)
    print("\n".join(describe(samples, manifest)))
    if arguments.sheet is not None:
        sheet(arguments.file, samples, arguments.seed).save(arguments.sheet, "PNG")
        print(f"samples and their training crops in two epochs: {shown(arguments.sheet)}")


if __name__ == "__main__":
    run_script(main)
