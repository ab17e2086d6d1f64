"""The GPU's kernels, on the host: the CPU decoder's pixels, bit by bit."""

import shutil
import subprocess
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from jpeg_samples import (
    SUBSAMPLINGS,
    encode,
    encode_440,
    encode_ones_at_block_ends,
    noise,
    photographs,
    random_box,
    size_of,
    waves,
)
from PIL import Image
from resizing import resized

from ffcv_imagenet import native
from ffcv_imagenet.augment.normalize import Normalize
from ffcv_imagenet.data.format.index import EntryIndex
from ffcv_imagenet.data.read.decode_gpu import BatchDecoder, OutputBuffers, output_levels
from ffcv_imagenet.data.read.gather import Gatherer


@pytest.fixture
def kernels(host_kernels):
    return host_kernels


def cpu_crop(jpeg, index, box, side, resize="triangle"):
    size = size_of(jpeg)[::-1]
    options = {"flip": bool(box[4]), "resize": resize, "index": index, "every": 4}
    return native.decode_crop(jpeg, size, box[:4], (side, side), **options)


class GivenBoxes:
    """Decodes given boxes (top, left, height, width, flip), one for each sample."""

    metadata = None

    def __init__(self, jpegs, indexes, boxes, resize):
        self.jpegs, self.indexes, self.given, self.decoded = jpegs, indexes, np.array(boxes, np.int32), []
        self.resize = resize

    def boxes(self, samples):
        return self.given[samples]

    def decode(self, samples, boxes, batch, codes, storage):
        for number, (sample, box) in enumerate(zip(samples, boxes.tolist(), strict=True)):
            self.decoded.append(int(sample))
            arguments = (self.jpegs[sample], self.indexes[sample] or None, box, batch.shape[1], self.resize)
            crop = outcome(lambda a=arguments: cpu_crop(*a))
            codes[number] = crop[0] is None
            if crop[0] is not None:
                batch[number] = crop[0]
            self.error = crop[1]


class Decoding:
    """Decode a batch of JPEG files with the kernels: ``images``, ``status``, and which were decoded ``on_cpu``."""

    def __init__(self, kernels, jpegs, boxes, side, dtype=torch.uint8, every=4, indexes=None, resize="triangle"):
        content = np.frombuffer(b"".join(jpegs), np.uint8)
        lengths = np.array([len(jpeg) for jpeg in jpegs], np.uint64)
        sizes = np.array([size_of(jpeg) for jpeg in jpegs], np.uint16)
        is_jpeg = np.ones(len(jpegs), bool)
        pointers = np.cumsum(lengths) - lengths
        indexes = indexes or [native.build_index(jpeg, every) for jpeg in jpegs]
        offsets = np.cumsum([0, *map(len, indexes)]).astype(np.uint64)
        index = EntryIndex(Path("in memory"), every, offsets, np.frombuffer(b"".join(indexes), np.uint8), b"")
        samples = SimpleNamespace(
            pointer=pointers, size=lengths, is_jpeg=is_jpeg, height=sizes[:, 1], width=sizes[:, 0]
        )
        gatherer = Gatherer(content, samples, index)
        count = len(jpegs)
        self.output = OutputBuffers(
            torch.zeros(count, side, side, 3, dtype=dtype),
            torch.zeros(count, dtype=torch.int64),
            torch.full((count,), -1, dtype=torch.int32),
        )
        decoder = GivenBoxes(jpegs, indexes, boxes, resize)
        self.on_cpu = np.zeros(count, bool)
        batch = BatchDecoder(gatherer, decoder, np.arange(count) + 7, kernels, count, dtype, Normalize())
        codes = np.zeros(count, np.int32)
        if batch.submit(np.arange(count), self.on_cpu, codes, None, self.output) is None:
            raise ValueError(decoder.error)
        self.status, self.decoded = self.output.status.numpy(), decoder.decoded

    @property
    def images(self):
        return self.output.images.numpy()


def expected(jpegs, boxes, side, resize="triangle"):
    return np.stack([cpu_crop(jpeg, None, box, side, resize) for jpeg, box in zip(jpegs, boxes, strict=True)])


def check(kernels, jpegs, boxes, side, every=4, resize="triangle"):
    got = Decoding(kernels, jpegs, boxes, side, every=every, resize=resize)
    assert not got.on_cpu.any()
    assert not got.status.any()
    assert np.array_equal(got.images, expected(jpegs, boxes, side, resize))
    assert np.array_equal(got.output.labels, np.arange(len(jpegs)) + 7)


def random_boxes(rng, width, height, count):
    boxes = []
    for number in range(count):
        x, y, w, h = random_box(rng, width, height)
        boxes.append((y, x, h, w, number % 2))
    return boxes


LAYOUTS = {
    **{name: lambda pixels, name=name, **more: encode(pixels, subsampling=name, **more) for name in SUBSAMPLINGS},
    "4:4:0": lambda pixels: encode_440(pixels),
    "grey": lambda pixels, **more: encode(pixels, "L", **more),
    "rgb": lambda pixels, **more: encode(pixels, subsampling="4:4:4", keep_rgb=True, **more),
}


@pytest.mark.parametrize("resize", native.RESIZE_FILTERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_chroma_layout_and_odd_sizes(kernels, layout, resize):
    rng = np.random.default_rng(1)
    for width, height in ((1, 1), (7, 9), (8, 16), (17, 33), (131, 65)):
        jpeg = LAYOUTS[layout](waves(width, height))
        boxes = [(0, 0, height, width, 0), (0, 0, height, width, 1), *random_boxes(rng, width, height, 10)]
        for side in (1, 13, 64):
            check(kernels, [jpeg] * len(boxes), boxes, side, resize=resize)


def test_one_pixel_crops_at_corners_and_block_borders(kernels):
    for layout in LAYOUTS:
        jpeg = LAYOUTS[layout](noise(35, 37))
        places = [(0, 0), (36, 34), (0, 34), (36, 0), (7, 8), (8, 7), (15, 16), (16, 15)]
        check(kernels, [jpeg] * len(places), [(y, x, 1, 1, y % 2) for y, x in places], 5)


def test_photographs_mixed_with_other_layouts_and_qualities(kernels):
    rng = np.random.default_rng(2)
    pixels = photographs()[0]
    jpegs, boxes = [], []
    for layout in LAYOUTS:
        for number, options in enumerate(({}, {"quality": 30, "optimize": True}, {"quality": 100})):
            jpegs.append(LAYOUTS[layout](pixels, **({} if layout == "4:4:0" else options)))
            boxes += random_boxes(rng, 640, 427, 1) if number else [(13, 17, 400, 600, 1)]
    check(kernels, jpegs, boxes, 96)


@pytest.mark.parametrize("options", [{"restart_marker_blocks": n} for n in (1, 3, 7)] + [{"restart_marker_rows": 2}])
@pytest.mark.parametrize("layout", ["4:2:0", "grey"])
@pytest.mark.parametrize("every", [1, 4, 255])
def test_restart_markers(kernels, options, layout, every):
    jpeg = LAYOUTS[layout](noise(150, 90), **options)
    boxes = [
        (0, 0, 90, 150, 0),
        (20, 70, 20, 30, 1),
        (80, 120, 10, 30, 0),
        *random_boxes(np.random.default_rng(3), 150, 90, 9),
    ]
    check(kernels, [jpeg] * len(boxes), boxes, 24, every)


@pytest.mark.parametrize("every", [1, 3])
def test_an_entry_inside_a_stuffed_byte(kernels, every):
    boxes = [(0, 0, 8, width, 0) for width in (8, 24, 40, 64)]
    check(kernels, [encode_ones_at_block_ends()] * 4, boxes, 16, every)


def test_long_codes_and_extreme_coefficients(kernels):
    """Optimised tables of noise have codes beyond the look-up; quantisers of 255 make the transform overflow."""
    jpeg = bytearray(encode(noise(64, 64), subsampling="4:4:4", quality=100, optimize=True))
    check(kernels, [bytes(jpeg)], [(0, 0, 64, 64, 0)], 64)
    start = bytes(jpeg).index(b"\xff\xdb")
    jpeg[start + 5 : start + 69] = bytes(255 - 3 * i for i in range(64))
    check(kernels, [bytes(jpeg)], [(0, 0, 64, 64, 0)], 64)


@pytest.mark.parametrize("resize", native.RESIZE_FILTERS)
def test_sums_beyond_16_bits(kernels, resize):
    """Black and white in saturated colours, enlarged: what negative weights add has to end at 255 on either side."""
    tiles = (np.indices((40, 50)).sum(0) % 2)[..., None]
    colours = [(255 * tiles * colour).astype(np.uint8) for colour in ([1, 1, 1], [1, 0, 0], [0, 0, 1], [0, 1, 1])]
    jpegs = [encode(pixels, subsampling="4:4:4", quality=100) for pixels in colours]
    check(kernels, jpegs, [(3, 5, 30, 41, 0)] * 4, 64, resize=resize)


def test_what_the_kernels_cannot_take_is_left_to_the_cpu(kernels):
    pixels = waves(64, 48)
    jpegs = [encode(pixels), encode(pixels, progressive=True), encode(pixels, "CMYK"), encode(pixels, "L")]
    boxes = [(1, 2, 40, 50, 1)] * 4
    for resize in native.RESIZE_FILTERS:
        got = Decoding(kernels, jpegs, boxes, 20, resize=resize)
        assert got.on_cpu.tolist() == [False, True, True, False]
        assert got.decoded == [1, 2]
        assert np.array_equal(got.images, expected(jpegs, boxes, 20, resize))
    nothing = [native.build_index(jpegs[0], 4), b"", b"", b""]
    assert Decoding(kernels, jpegs, boxes, 20, indexes=nothing).decoded == [1, 2, 3]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float16, torch.float32])
def test_the_output_is_what_normalising_the_cpus_pixels_gives(kernels, dtype):
    jpegs, boxes = [encode(noise(50, 40)), encode(waves(50, 40), progressive=True)], [(0, 0, 40, 50, 0)] * 2
    images = Decoding(kernels, jpegs, boxes, 32, dtype).output.images.permute(0, 3, 1, 2)
    pixels = torch.from_numpy(expected(jpegs, boxes, 32)).permute(0, 3, 1, 2)
    assert images.dtype == dtype
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, pixels if dtype == torch.uint8 else Normalize()(pixels).to(dtype))
    assert output_levels(dtype, Normalize()).shape == (3, 256)


@pytest.mark.parametrize("resize", native.RESIZE_FILTERS)
@pytest.mark.parametrize("layout", ["4:4:4", "4:2:0", "4:2:2", "grey"])
def test_resizing_is_what_its_definition_says(kernels, layout, resize):
    """Against the definition, not the CPU's code, which shares the weights: chroma enlarged with 3/4 and 1/4, as
    libjpeg does, then cropped and resized."""
    width, height, side = 70, 45, 24
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    colours = [60 + x + y, 190 - 2 * y + 10 * np.sin(x / 5), 100 + 40 * np.cos(x / 9) * np.sin(y / 7)]
    jpeg = LAYOUTS[layout](np.stack(colours, -1).astype(np.uint8), quality=100)
    whole = np.array(Image.open(BytesIO(jpeg)).convert("RGB"))
    for top, left, rows, columns in ((0, 0, height, width), (3, 5, 30, 41), (10, 20, 9, 7), (44, 69, 1, 1)):
        expected = resized(whole, (left, top, columns, rows), (side, side), resize)
        got = Decoding(kernels, [jpeg], [(top, left, rows, columns, 0)], side, resize=resize).images[0]
        difference = np.abs(got - expected)
        assert difference.max() <= 3
        assert difference.mean() <= 1


def outcome(function):
    """(result, None), or (None, what the error says)."""
    try:
        return function(), None
    except ValueError as error:
        return None, str(error)


def test_damage_is_noticed_wherever_the_cpu_notices_it(kernels):
    """Whenever the kernels find nothing wrong, neither does the CPU, and the pixels are the CPU's."""
    rng, pixels = np.random.default_rng(4), photographs()[1][:120, :160]
    good = {name: LAYOUTS[name](pixels) for name in ("4:2:0", "4:4:4", "grey")}
    good["restart"] = encode(pixels, restart_marker_blocks=3)
    jpegs, boxes, indexes = [], [], []
    for jpeg in good.values():
        index = native.build_index(jpeg, 4)
        for _ in range(40):
            bad = bytearray(jpeg)
            for at in rng.integers(len(bad) // 4, len(bad), rng.integers(1, 4)):
                bad[at] = rng.integers(256)
            bad_index = bytearray(index)
            if rng.integers(4) == 0:
                bad_index[rng.integers(len(index))] ^= 1 << rng.integers(8)
            jpegs.append(bytes(bad[: len(bad) - rng.integers(2) * rng.integers(len(bad) // 2)]))
            indexes.append(bytes(bad_index))
            boxes += random_boxes(rng, 160, 120, 1)
    damaged = 0
    for jpeg, index, box in zip(jpegs, indexes, boxes, strict=True):
        pixels, error = outcome(lambda a=jpeg, b=index, c=box: cpu_crop(a, b, c, 24))
        damaged += error is not None
        got, raised = outcome(lambda a=[jpeg], b=[box], c=[index]: Decoding(kernels, a, b, 24, indexes=c))
        if got is None:  # it was left to the CPU
            assert raised == error
        elif error is not None:
            assert got.status[0] == 1
        else:
            assert got.status[0] == 1 or np.array_equal(got.images[0], pixels)
    assert 20 < damaged < 140


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_nvcc_compiles_for_gpus(architecture, tmp_path):
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed")
    command = ["nvcc", f"-arch={architecture}", "-cubin", "-Werror=all-warnings", "-Xptxas=-v", native.GPU_KERNELS]
    done = subprocess.run([*command, "-o", tmp_path / "kernels.cubin"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Registers alone: an array that is indexed at run time would go to slow memory.
    assert done.stderr.count("0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads") == 4, done.stderr


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_nvrtc_compiles_for_gpus(architecture):
    pytest.importorskip("cuda.core")
    from ffcv_imagenet.data.read.kernels import compile_kernels

    assert compile_kernels(architecture).code[:4] == b"\x7fELF"
