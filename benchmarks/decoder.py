"""Milliseconds per image and thread of decoding random resized crops.

    python benchmarks/decoder.py FOLDER [--images 400] [--rounds 9] [--reencode 500 90]

FOLDER is searched for JPEG files. Ways that are compared: FFCV's (the whole image through libturbojpeg, then OpenCV's
INTER_AREA), and the native decoder plain, with an entry-point index at every 4th MCU, without SIMD. The ways take
turns every 20 images, with the same boxes and flips, so that a machine's changing speed meets all alike; of each 20 the
median over the rounds counts. Time is the process's, so that other processes disturb little; nothing here is
multithreaded. FFCV's way does not include its flip, which is a stage of its own there.
"""

import argparse
import math
import random
import sys
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "helpers"))
from native_library import Decoder, load

CHUNK = 20


def random_resized_crop(width, height, rng):
    """A box (x, y, w, h): area 0.08..1 of the image, aspect ratio 3/4..4/3, as torchvision draws it."""
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return rng.randint(0, width - w), rng.randint(0, height - h), w, h
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side, side


def read_images(folder, count, reencode):
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    images = []
    for path in paths[:count]:
        data = path.read_bytes()
        if reencode:
            longest, quality = reencode
            pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
            scale = longest / max(pixels.shape[:2])
            if scale < 1:
                pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        images.append(np.frombuffer(data, np.uint8))
    return images


class FfcvWay:
    """What ffcv 1.0.2's RandomResizedCropRGBImageDecoder calls for an image."""

    def __init__(self):
        from ffcv.libffcv import imdecode, resize_crop

        cv2.setNumThreads(1)

        self.imdecode, self.resize_crop = imdecode, resize_crop
        self.buffer = np.zeros(0, np.uint8)

    def __call__(self, image, size, box, out, flip):
        width, height = size
        if self.buffer.size < width * height * 3:
            self.buffer = np.zeros(width * height * 3, np.uint8)
        pixels = self.buffer[: width * height * 3].reshape(height, width, 3)
        self.imdecode(image, pixels, height, width, height, width, 0, 0, 1, 1, False, False)
        x, y, w, h = box
        self.resize_crop(pixels, y, y + h, x, x + w, out)


class NativeWay:
    def __init__(self, images, simd=True, k=0):
        self.decoder = Decoder(simd=simd)
        self.function, self.context = load().fic_decode_crop, self.decoder.context
        self.indices = {id(image): self.decoder.index(image, k) for image in images} if k else {}
        # As compiled code would have them: addresses, not arrays.
        self.inputs = {id(image): (image.ctypes.data, image.size) for image in images}
        self.entries = {key: (i.ctypes.data, i.size, k) for key, i in self.indices.items() if i.size}

    def __call__(self, image, size, box, out, flip):
        entries = self.entries.get(id(image), (None, 0, 0))
        shape = out.shape
        code = self.function(
            self.context, *self.inputs[id(image)], *size, *box, shape[1], shape[0], flip, 0, *entries, out.ctypes.data
        )
        assert code == 0, code


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--reencode", type=int, nargs=2, metavar=("LONGEST", "QUALITY"))
    parser.add_argument("--no-scalar", action="store_true")
    arguments = parser.parse_args()

    images = read_images(arguments.folder, arguments.images, arguments.reencode)
    ways = {"native": NativeWay(images), "native, index k=4": NativeWay(images, k=4)}
    if not arguments.no_scalar:
        ways["native, scalar"] = NativeWay(images, simd=False)
    try:
        ways = {"ffcv": FfcvWay(), **ways}
    except ImportError:
        print("ffcv is not installed: its way is left out", file=sys.stderr)
    probe = Decoder().probe
    sizes = [(info.width, info.height) for info in map(probe, images)]
    rng = random.Random(0)
    boxes = [random_resized_crop(*size, rng) for size in sizes]
    flips = [rng.randint(0, 1) for _ in images]
    kib = np.mean([image.size for image in images]) / 1024
    print(f"{len(images)} images, {kib:.1f} KiB mean, {arguments.rounds} rounds")
    for resolution in (160, 224):
        out = np.zeros((resolution, resolution, 3), np.uint8)
        samples = list(zip(images, sizes, boxes, flips, strict=True))
        chunks = [samples[i : i + CHUNK] for i in range(0, len(samples), CHUNK)]
        times = {name: np.zeros((arguments.rounds + 1, len(chunks))) for name in ways}
        for round_number in range(arguments.rounds + 1):
            for chunk_number, chunk in enumerate(chunks):
                for name, way in ways.items():
                    start = time.process_time()
                    for sample in chunk:
                        way(*sample[:3], out, sample[3])
                    times[name][round_number, chunk_number] = time.process_time() - start
        # The first round warms up.
        medians = {name: np.median(t[1:], axis=0).sum() / len(images) * 1e3 for name, t in times.items()}
        reference = next(iter(medians.values()))
        for name, t in times.items():
            rounds = t[1:].sum(axis=1) / len(images) * 1e3
            print(
                f"{resolution} px  {name:18} {medians[name]:.3f} ms  (rounds {rounds.min():.3f}..{rounds.max():.3f})"
                f"  {reference / medians[name]:.2f}x"
            )


if __name__ == "__main__":
    main()
