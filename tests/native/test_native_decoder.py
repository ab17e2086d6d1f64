"""Decoding crops: against Pillow, scalar against SIMD, and on everything that may be wrong with the bytes."""

import contextlib
import io
import math
import threading

import cv2
import native_library as native
import numpy as np
import pytest
from jpeg_samples import (
    SUBSAMPLINGS,
    encode,
    encode_440,
    noise,
    photographs,
    pillow_crop,
    psnr,
    random_box,
    segment,
    size_of,
    waves,
)
from native_library import Decoder, NativeError
from PIL import Image
from resizing import resized

from ffcv_imagenet.native import RESIZE_FILTERS, Error, read_image

SIZES = [(1, 1), (7, 9), (8, 8), (16, 16), (17, 33), (31, 15), (64, 48), (129, 65)]


def code_of(function, *arguments, **options):
    with pytest.raises(NativeError) as caught:
        function(*arguments, **options)
    assert str(caught.value).split(": ", 1)[1] not in ("unknown error", "success")
    return caught.value.code


@pytest.mark.parametrize("subsampling", [*SUBSAMPLINGS, "4:4:0", "grey"])
@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
def test_whole_image_matches_pillow(decoder, size, subsampling):
    pixels = waves(*size)
    jpeg = {"4:4:0": lambda: encode_440(pixels), "grey": lambda: encode(pixels, "L")}.get(
        subsampling, lambda: encode(pixels, subsampling=subsampling)
    )()
    box = (0, 0, *size)
    for out in (size, (20, 13), (150, 140)):
        got = decoder.crop(jpeg, size, box, out)
        # The filter's own precision is tested on photographs; a misplaced sample costs far more than this.
        assert psnr(got, pillow_crop(jpeg, box, out)) > 38


@pytest.mark.parametrize("subsampling", [*SUBSAMPLINGS, "grey"])
def test_photographs_match_pillow(decoder, subsampling):
    rng = np.random.default_rng(3)
    quality, difference = [], []
    for pixels in photographs():
        jpeg = encode(pixels, "L") if subsampling == "grey" else encode(pixels, subsampling=subsampling)
        for _ in range(12):
            w, h = rng.integers(40, 400, 2)
            x, y = rng.integers(0, pixels.shape[1] - w), rng.integers(0, pixels.shape[0] - h)
            box, flip = (int(x), int(y), int(w), int(h)), bool(rng.integers(2))
            got, expected = (
                decoder.crop(jpeg, size_of(jpeg), box, (96, 96), flip),
                pillow_crop(jpeg, box, (96, 96), flip),
            )
            quality.append(psnr(got, expected))
            difference.append(np.mean(got.astype(float) - expected))
    assert np.median(quality) > (50 if subsampling == "4:2:0" else 52)
    assert np.min(quality) > 36
    assert abs(np.mean(difference)) < 0.2


def test_random_boxes_match_pillow(decoder):
    """Boxes of any size and place: neighbours outside the box must not shine through, nor the image's padding."""
    rng = np.random.default_rng(4)
    for subsampling in SUBSAMPLINGS:
        jpeg = encode(waves(61, 47), subsampling=subsampling, quality=95)
        for _ in range(60):
            box, out = random_box(rng, 61, 47), tuple(int(v) for v in rng.integers(1, 70, 2))
            assert psnr(decoder.crop(jpeg, (61, 47), box, out), pillow_crop(jpeg, box, out)) > 33


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_one_pixel_crops(decoder, subsampling):
    jpeg = encode(waves(19, 21), subsampling=subsampling)
    for x, y in ((0, 0), (18, 20), (7, 8), (8, 7), (15, 16), (16, 15)):
        got = decoder.crop(jpeg, (19, 21), (x, y, 1, 1), (5, 3))
        assert (got == got[0, 0]).all()
        assert np.abs(got[0, 0].astype(int) - pillow_crop(jpeg, (x, y, 1, 1), (1, 1))[0, 0]).max() <= 4


def test_scalar_and_simd_give_the_same_bits():
    simd, scalar = Decoder(simd=True), Decoder(simd=False)
    rng = np.random.default_rng(5)
    for quality in (5, 50, 100):
        for subsampling in SUBSAMPLINGS:
            jpeg = encode(noise(90, 70, quality), subsampling=subsampling, quality=quality)
            for _ in range(25):
                box, out = random_box(rng, 90, 70), tuple(int(v) for v in rng.integers(1, 120, 2))
                flip, resize = bool(rng.integers(2)), list(RESIZE_FILTERS)[rng.integers(3)]
                a, b = (d.crop(jpeg, (90, 70), box, out, flip, resize=resize) for d in (simd, scalar))
                assert np.array_equal(a, b)


def test_scalar_and_simd_agree_on_extreme_coefficients():
    """Quantisers that no encoder writes make the transform overflow; it has to overflow alike."""
    jpeg = bytearray(encode(noise(48, 48), subsampling="4:4:4", quality=100))
    start = 0
    for _ in range(2):
        start = bytes(jpeg).index(b"\xff\xdb", start)
        jpeg[start + 5 : start + 69] = bytes(255 - 3 * i for i in range(64))
        start += 2
    a, b = (Decoder(simd=s).crop(bytes(jpeg), (48, 48), (0, 0, 48, 48), (48, 48)) for s in (True, False))
    assert np.array_equal(a, b)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_flip_mirrors_exactly(decoder, subsampling):
    jpeg = encode(noise(75, 50), subsampling=subsampling)
    for box in ((0, 0, 75, 50), (3, 5, 41, 37), (16, 16, 8, 8)):
        for out in ((32, 32), (33, 20), (1, 4), (90, 7)):
            plain, flipped = (decoder.crop(jpeg, (75, 50), box, out, flip) for flip in (False, True))
            assert np.array_equal(flipped, plain[:, ::-1])


@pytest.mark.parametrize(
    "options", [{"restart_marker_blocks": 1}, {"restart_marker_blocks": 7}, {"restart_marker_rows": 2}]
)
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_restart_markers_change_nothing(decoder, subsampling, options):
    pixels = noise(150, 90)
    plain, restarts = encode(pixels, subsampling=subsampling), encode(pixels, subsampling=subsampling, **options)
    assert decoder.probe(restarts).restart_interval > 0
    assert b"\xff\xd1" in restarts
    for box in ((0, 0, 150, 90), (70, 40, 30, 20), (120, 80, 30, 10)):
        a, b = (decoder.crop(jpeg, (150, 90), box, (24, 24)) for jpeg in (plain, restarts))
        assert np.array_equal(a, b)


def test_optimised_huffman_tables_change_nothing(decoder):
    jpegs = [encode(p, optimize=o, quality=q) for p in photographs()[:1] for q in (30, 90) for o in (False, True)]
    for plain, optimised in (jpegs[:2], jpegs[2:]):
        assert len(optimised) < len(plain)
        a, b = (decoder.crop(jpeg, size_of(jpeg), (100, 50, 300, 200), (64, 64)) for jpeg in (plain, optimised))
        assert np.array_equal(a, b)


def test_decoder_keeps_nothing_between_images():
    """Tables, filters and buffers are reused: any order of images gives the pixels of a fresh context."""
    pixels = photographs()[0][:200, :260]
    jpegs = [
        encode(pixels, subsampling=s, optimize=o, quality=q) for s in SUBSAMPLINGS for o in (0, 1) for q in (40, 95)
    ]
    jpegs += [encode(pixels, "L"), encode(pixels, progressive=True), encode(pixels, "CMYK"), encode_440(pixels)]
    used, rng = Decoder(), np.random.default_rng(6)
    for i in rng.integers(0, len(jpegs), 60):
        box, out = random_box(rng, 260, 200), tuple(int(v) for v in rng.integers(1, 90, 2))
        a, b = (d.crop(jpegs[i], (260, 200), box, out) for d in (used, Decoder()))
        assert np.array_equal(a, b)


def test_contexts_are_independent():
    jpegs = [encode(photographs()[0], subsampling=s, quality=q) for s in SUBSAMPLINGS for q in (60, 90)]
    expected = [Decoder().crop(j, size_of(j), (10, 20, 400, 300), (64, 64)) for j in jpegs]
    wrong = []

    def work():
        decoder = Decoder()
        for _ in range(5):
            for jpeg, pixels in zip(jpegs, expected, strict=True):
                if not np.array_equal(decoder.crop(jpeg, size_of(jpeg), (10, 20, 400, 300), (64, 64)), pixels):
                    wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_rgb_jpeg(decoder):
    """Adobe transform 0: the components are red, green and blue."""
    jpeg = encode(waves(70, 50), subsampling="4:4:4", keep_rgb=True)
    assert jpeg[segment(jpeg, 0xEE)[0] + 15] == 0
    assert decoder.probe(jpeg).indexable
    box = (5, 6, 50, 40)
    assert psnr(decoder.crop(jpeg, (70, 50), box, (30, 30)), pillow_crop(jpeg, box, (30, 30))) > 48


@pytest.mark.parametrize("length", [10, 15, 16, 20])
def test_rgb_jpeg_with_a_jfif_marker(decoder, length):
    """JFIF says YCbCr, except that libjpeg, and so Pillow, does not believe a marker that is too short."""
    jpeg, box = encode(waves(70, 50), subsampling="4:4:4", keep_rgb=True), (5, 6, 50, 40)
    marker = bytes([0xFF, 0xE0, 0, length]) + b"JFIF\0\1\1\0\0\1\0\1\0\0".ljust(18, b"\0")[: length - 2]
    jpeg = jpeg[:2] + marker + jpeg[2:]
    assert psnr(decoder.crop(jpeg, (70, 50), box, (50, 40)), pillow_crop(jpeg, box, (50, 40))) > 48


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_progressive_goes_to_libturbojpeg(decoder, subsampling):
    pixels = photographs()[1][:300, :300]
    jpeg, box = encode(pixels, subsampling=subsampling, progressive=True), (33, 41, 170, 201)
    assert decoder.probe(jpeg).progressive
    assert not decoder.probe(jpeg).indexable
    got = decoder.crop(jpeg, (300, 300), box, (80, 80), True)
    assert psnr(got, pillow_crop(jpeg, box, (80, 80), True)) > 48
    # The same coefficients as a baseline file: no visible change of path.
    baseline = encode(pixels, subsampling=subsampling)
    assert psnr(got, decoder.crop(baseline, (300, 300), box, (80, 80), True)) > 55


def test_progressive_grey(decoder):
    jpeg = encode(waves(50, 40), "L", progressive=True)
    assert (
        psnr(decoder.crop(jpeg, (50, 40), (2, 3, 40, 30), (20, 20)), pillow_crop(jpeg, (2, 3, 40, 30), (20, 20))) > 48
    )


def test_cmyk_as_pillow_converts_it(decoder):
    pixels = photographs()[0][:120, :160]
    ink = np.concatenate([255 - pixels, pixels[..., :1] // 3], axis=-1)
    buffer = io.BytesIO()
    Image.fromarray(ink, "CMYK").save(buffer, "JPEG", quality=95)
    jpeg, box = buffer.getvalue(), (11, 13, 120, 90)
    assert decoder.probe(jpeg).components == 4
    assert psnr(decoder.crop(jpeg, (160, 120), box, (60, 60)), pillow_crop(jpeg, box, (60, 60))) > 45


def test_sampling_factors_out_of_scope_go_to_libturbojpeg(decoder):
    import cv2

    pixels = waves(80, 64)
    parameters = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411]
    jpeg = cv2.imencode(".jpg", pixels[..., ::-1], parameters)[1].tobytes()
    assert not decoder.probe(jpeg).indexable
    assert decoder.probe(jpeg).subsampling_x == 0
    got = decoder.crop(jpeg, (80, 64), (0, 0, 80, 64), (40, 40))
    assert psnr(got, pillow_crop(jpeg, (0, 0, 80, 64), (40, 40))) > 45


@pytest.mark.parametrize("resize", RESIZE_FILTERS)
def test_resizing_is_what_its_definition_says(decoder, resize):
    scalar, rng = Decoder(simd=False), np.random.default_rng(7)
    for pixels in (photographs()[0], noise(150, 130), (noise(90, 70) // 128) * np.uint8(255)):
        height, width = pixels.shape[:2]
        for _ in range(25):
            box, out = random_box(rng, width, height), tuple(int(v) for v in rng.integers(1, 150, 2))
            got = decoder.resize(pixels, box, out, resize=resize)
            assert np.abs(got - resized(pixels, box, out, resize).clip(0, 255)).max() <= 1
            assert np.array_equal(decoder.resize(pixels, box, out, True, resize), got[:, ::-1])
            assert np.array_equal(got, scalar.resize(pixels, box, out, resize=resize))


@pytest.mark.parametrize(("resize", "low", "high"), [("triangle", 0, 255), ("bicubic", 64, 191)])
def test_triangle_and_bicubic_are_pillows(decoder, resize, low, high):
    """Pillow clips between its two passes; with bicubic weights it has nothing to clip between ``low`` and ``high``."""
    pixels, rng = noise(150, 130).clip(low, high), np.random.default_rng(8)
    pillow = {"triangle": Image.BILINEAR, "bicubic": Image.BICUBIC}[resize]
    for _ in range(40):
        box, out = random_box(rng, 150, 130), tuple(int(v) for v in rng.integers(1, 200, 2))
        x, y, w, h = box
        expected = np.asarray(Image.fromarray(pixels[y : y + h, x : x + w]).resize(out, pillow)).astype(int)
        assert np.abs(decoder.resize(pixels, box, out, resize=resize) - expected).max() <= 1


def test_bicubic_differs_from_pillow_only_where_pillow_clips_between_its_passes(decoder):
    pixels = photographs()[0]
    expected = np.asarray(Image.fromarray(pixels).resize((160, 160), Image.BICUBIC)).astype(int)
    difference = np.abs(decoder.resize(pixels, (0, 0, *pixels.shape[1::-1]), (160, 160), resize="bicubic") - expected)
    assert (difference > 1).mean() < 0.001


@pytest.mark.parametrize("grows", [False, True])
def test_area_is_opencvs(decoder, grows):
    pixels, rng = noise(150, 130), np.random.default_rng(9)
    for _ in range(60):
        x, y, w, h = box = random_box(rng, 150, 130)
        out = [int(rng.integers(side, 200) if grows else rng.integers(1, side + 1)) for side in (w, h)]
        if grows and (math.gcd(out[0], w) > 1 or math.gcd(out[1], h) > 1):
            continue  # where an output pixel begins exactly where a pixel does, OpenCV's rounding takes the one before
        expected = cv2.resize(pixels[y : y + h, x : x + w], out, interpolation=cv2.INTER_AREA).astype(int)
        assert np.abs(decoder.resize(pixels, box, out, resize="area") - expected).max() <= 1


def test_area_averages_along_one_axis_while_the_other_grows(decoder):
    """OpenCV does not: then it takes two of the eight pixels along the axis that shrinks."""
    stripes = np.tile(np.array([0, 0, 255, 0, 0, 0, 255, 0], np.uint8)[:, None, None], (10, 20, 3))
    got = decoder.resize(stripes, (0, 0, 20, 80), (30, 10), resize="area")
    assert np.abs(got - 63.75).max() < 1
    opencv = cv2.resize(stripes, (30, 10), interpolation=cv2.INTER_AREA)
    assert np.abs(opencv - 63.75).min() > 30


@pytest.mark.parametrize("resize", RESIZE_FILTERS)
def test_same_size_raw_pixels_are_copied(decoder, resize):
    pixels = noise(37, 23)
    assert np.array_equal(decoder.resize(pixels, (0, 0, 37, 23), (37, 23), resize=resize), pixels)
    assert np.array_equal(decoder.resize(pixels, (5, 3, 20, 11), (20, 11), resize=resize), pixels[3:14, 5:25])


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_scalar_and_simd_build_the_same_filters(subsampling):
    """Weights are rounded from quotients, where halves occur: most often with powers of 2."""
    simd, scalar, rng = Decoder(simd=True), Decoder(simd=False), np.random.default_rng(10)
    jpeg = encode(noise(1300, 9), subsampling=subsampling, quality=100)
    for number in range(200):
        x, _, w, _ = random_box(rng, 1300, 9)
        if number % 3 == 0:
            w = 2 ** int(np.log2(w))
        out = int(rng.choice([64, 128, 160, 224, 256, rng.integers(1, 400)])), 4
        box, flip, resize = (x, 0, w, 9), bool(number % 2), list(RESIZE_FILTERS)[number % 2]
        a, b = (d.crop(jpeg, (1300, 9), box, out, flip, resize=resize) for d in (simd, scalar))
        assert np.array_equal(a, b)


@pytest.mark.parametrize("resize", RESIZE_FILTERS)
def test_extreme_scales(decoder, resize):
    pixels = np.full((3, 3000, 3), 77, np.uint8)
    pixels[:, 1500:] = 99
    got = decoder.resize(pixels, (0, 0, 3000, 3), (1, 1), resize=resize)
    assert np.array_equal(got, np.full((1, 1, 3), 88))
    got = decoder.resize(pixels, (1499, 1, 1, 1), (64, 300), resize=resize)
    assert np.array_equal(got, np.full((300, 64, 3), 77))


@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 3}, {"optimize": True}])
def test_every_truncation_is_noticed(decoder, options):
    """Whatever is cut off: the whole image is never decoded without an error, and never one that is not one of data."""
    jpeg = encode(noise(40, 33), quality=50, **options)
    scan_end = len(jpeg) - 2
    for cut in [*range(0, 700, 7), *range(700, scan_end, 13), *range(scan_end - 3, scan_end + 2)]:
        code = code_of(decoder.crop, jpeg[:cut], (40, 33), (0, 0, 40, 33), (16, 16))
        assert code in (Error.NOT_JPEG, Error.HEADER, Error.TRUNCATED, Error.RESTART)


@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 3}])
def test_truncation_is_noticed_behind_the_crop_too(decoder, options):
    jpeg = encode(noise(64, 64), quality=50, **options)
    assert decoder.crop(jpeg, (64, 64), (0, 0, 64, 20), (16, 16)).any()
    for short in (jpeg[: len(jpeg) * 2 // 3], jpeg[:-2], jpeg[:-1]):
        for top in (0, 44):
            code = code_of(decoder.crop, short, (64, 64), (0, top, 64, 20), (16, 16))
            assert code in (Error.TRUNCATED, Error.RESTART)


def test_truncated_progressive_is_an_error(decoder):
    jpeg = encode(noise(64, 64), progressive=True)
    assert code_of(decoder.crop, jpeg[: len(jpeg) // 2], (64, 64), (0, 0, 64, 64), (16, 16)) == Error.FALLBACK
    # ... and the context is still good.
    assert decoder.crop(jpeg, (64, 64), (0, 0, 64, 64), (16, 16)).any()


def test_garbage_then_good_bytes(decoder):
    good, rng = encode(waves(50, 50)), np.random.default_rng(8)
    expected = decoder.crop(good, (50, 50), (0, 0, 50, 50), (20, 20))
    for _ in range(300):
        bad = bytearray(good)
        for at in rng.integers(0, len(bad), rng.integers(1, 6)):
            bad[at] = rng.integers(256)
        with contextlib.suppress(NativeError):
            decoder.crop(bytes(bad), (50, 50), (0, 0, 50, 50), (20, 20))
    assert np.array_equal(decoder.crop(good, (50, 50), (0, 0, 50, 50), (20, 20)), expected)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"mode": "CMYK"}])
def test_a_damaged_image_does_nothing_to_the_next(decoder, options):
    # libturbojpeg's handle is in no usable state when it has met damage in a header.
    pixels = waves(50, 40)
    jpeg = encode(pixels, **options)
    damaged = [jpeg[:size] for size in range(3, len(jpeg), 11)]
    damaged += [jpeg[:place] + b"\xd9" + jpeg[place + 1 :] for place in range(2, len(jpeg), 11)]
    box, size = (3, 1, 40, 30), (50, 40)
    expected = Decoder().crop(jpeg, size, box, (16, 16))
    refused = 0
    for bad in damaged:
        try:
            decoder.crop(bad, size, box, (16, 16))
        except NativeError:
            refused += 1
        assert np.array_equal(decoder.crop(jpeg, size, box, (16, 16)), expected)
    assert refused > 30
    for bad in damaged:
        with contextlib.suppress(ValueError):
            read_image(bad)
        if options:
            with pytest.raises(ValueError, match=r"progressive|unsupported"):
                read_image(jpeg)
        else:
            assert np.array_equal(read_image(jpeg), np.asarray(Image.open(io.BytesIO(jpeg))))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_file_without_quantisers_does_not_get_those_of_the_image_before(decoder, progressive):
    pixels = waves(50, 40)
    jpeg = encode(pixels, progressive=progressive)
    start, end = segment(jpeg, 0xDB)
    bare = jpeg[:start] + jpeg[end:]
    start, end = segment(bare, 0xDB)
    bare = bare[:start] + bare[end:]
    box, size = (0, 0, 50, 40), (50, 40)
    assert decoder.crop(jpeg, size, box, (16, 16)).any()
    with pytest.raises(NativeError):
        decoder.crop(bare, size, box, (16, 16))
    if not progressive:
        assert np.array_equal(read_image(jpeg), np.asarray(Image.open(io.BytesIO(jpeg))))
    with pytest.raises(ValueError, match="progressive" if progressive else "libturbojpeg cannot decode"):
        read_image(bare)


def test_tables_without_an_image_are_an_error():
    jpeg = encode(waves(50, 40))
    tables = jpeg[: jpeg.index(b"\xff\xc0")] + b"\xff\xd9"
    with pytest.raises(ValueError, match="malformed JPEG header"):
        read_image(tables)
    data, out = np.frombuffer(tables, np.uint8), np.empty((40, 50, 3), np.uint8)
    code = native.load().fic_read_image(data.ctypes.data, data.size, 50, 40, out.ctypes.data)
    assert code in (Error.SIZE_MISMATCH, Error.UNSUPPORTED)  # libjpeg-turbo 3 refuses them itself


def test_not_a_jpeg(decoder):
    for data in (b"", b"\xff", b"\xff\xd8", b"\x89PNG" + bytes(100), bytes(1000), b"\xff" * 1000):
        assert code_of(decoder.crop, data, (8, 8), (0, 0, 8, 8), (8, 8)) in (Error.NOT_JPEG, Error.HEADER)
        assert code_of(decoder.probe, data) in (Error.NOT_JPEG, Error.HEADER)


def test_wrong_stored_size(decoder):
    for jpeg in (encode(waves(50, 40)), encode(waves(50, 40), progressive=True)):
        for size in ((49, 40), (51, 40), (50, 39), (50, 41), (40, 50)):
            assert code_of(decoder.crop, jpeg, size, (0, 0, 8, 8), (8, 8)) == Error.SIZE_MISMATCH


@pytest.mark.parametrize(
    "box",
    [(-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 0, 5), (0, 0, 5, 0), (46, 0, 5, 5), (0, 36, 5, 5), (2**31 - 1, 0, 5, 5)],
)
def test_outlying_boxes(decoder, box):
    jpeg = encode(waves(50, 40))
    assert code_of(decoder.crop, jpeg, (50, 40), box, (8, 8)) == Error.ARGUMENT
    assert code_of(decoder.resize, waves(50, 40), box, (8, 8)) == Error.ARGUMENT


def test_output_sizes_out_of_range(decoder):
    library, jpeg = decoder.library, native.as_bytes(encode(waves(50, 40)))
    for out in ((0, 8), (8, 0), (-1, 8), (16385, 1)):
        for flip in (0, 1):
            arguments = (50, 40, 0, 0, 50, 40, *out, flip, 0, None, 0, 0, jpeg.ctypes.data)
            assert library.fic_decode_crop(decoder.context, jpeg.ctypes.data, jpeg.size, *arguments) == Error.ARGUMENT


def test_unknown_filters(decoder):
    jpeg, out = native.as_bytes(encode(waves(50, 40))), np.zeros((8, 8, 3), np.uint8)
    for resize in (-1, 3):
        arguments = (50, 40, 0, 0, 50, 40, 8, 8, 0, resize, None, 0, 0, out.ctypes.data)
        code = decoder.library.fic_decode_crop(decoder.context, jpeg.ctypes.data, jpeg.size, *arguments)
        assert code == Error.ARGUMENT


def replace_huffman_counts(jpeg, counts):
    at, _ = segment(jpeg, 0xC4)
    bad = bytearray(jpeg)
    bad[at + 5 : at + 21] = bytes(counts)
    return bytes(bad)


def test_over_subscribed_huffman_tables(decoder):
    jpeg = encode(waves(50, 40), "L")
    at, _ = segment(jpeg, 0xC4)
    total = sum(jpeg[at + 5 : at + 21])
    for counts in ([3] + [0] * 14 + [total - 3], [0, 5] + [0] * 13 + [total - 5], [2, 1] + [0] * 13 + [total - 3]):
        bad = replace_huffman_counts(jpeg, counts)
        assert code_of(decoder.crop, bad, (50, 40), (0, 0, 50, 40), (8, 8)) == Error.HUFFMAN_TABLE
        assert code_of(decoder.index, bad) == Error.HUFFMAN_TABLE
    assert decoder.crop(jpeg, (50, 40), (0, 0, 50, 40), (8, 8)).any()


def test_missing_tables(decoder):
    jpeg = encode(waves(50, 40))
    without = {}
    for marker in (0xC4, 0xDB):
        without[marker] = jpeg
        while bytes((0xFF, marker)) in without[marker][: segment(without[marker], 0xDA)[0]]:
            start, end = segment(without[marker], marker)
            without[marker] = without[marker][:start] + without[marker][end:]
    assert code_of(decoder.crop, without[0xDB], (50, 40), (0, 0, 50, 40), (8, 8)) == Error.HEADER
    # libjpeg uses the standard's Huffman tables, as Motion JPEG wants it; so this is no error of the file.
    assert code_of(decoder.index, without[0xC4]) == Error.HUFFMAN_TABLE
    crop = decoder.crop(without[0xC4], (50, 40), (0, 0, 50, 40), (20, 20))
    assert psnr(crop, pillow_crop(without[0xC4], (0, 0, 50, 40), (20, 20))) > 40


def test_restart_markers_out_of_order(decoder):
    jpeg = bytearray(encode(noise(60, 60), restart_marker_blocks=2))
    at = jpeg.index(b"\xff\xd2")
    jpeg[at + 1] = 0xD5
    assert code_of(decoder.crop, bytes(jpeg), (60, 60), (0, 0, 60, 60), (8, 8)) == Error.RESTART


def test_twelve_bit_and_arithmetic_are_errors(decoder):
    jpeg = bytearray(encode(waves(50, 40)))
    frame, _ = segment(jpeg, 0xC0)
    twelve = jpeg.copy()
    twelve[frame + 4] = 12
    lossless = jpeg.copy()
    lossless[frame + 1] = 0xC3
    for bad in (twelve, lossless):
        code = code_of(decoder.crop, bytes(bad), (50, 40), (0, 0, 50, 40), (8, 8))
        assert code in (Error.UNSUPPORTED, Error.FALLBACK)


def test_markers_before_the_frame_are_skipped(decoder):
    jpeg = encode(waves(50, 40))
    comment = b"\xff\xfe\x00\x06\xff\xd8\xff\xda"
    thumbnail = b"\xff\xe1" + (len(jpeg) + 2).to_bytes(2, "big") + jpeg
    longer = jpeg[:2] + comment + b"\xff\xff\xff" + thumbnail + jpeg[2:]
    box = (0, 0, 50, 40)
    assert np.array_equal(decoder.crop(longer, (50, 40), box, (20, 20)), decoder.crop(jpeg, (50, 40), box, (20, 20)))


def test_probe(decoder):
    expected = {"4:4:4": (1, 1), "4:2:2": (2, 1), "4:2:0": (2, 2)}
    for subsampling, factors in expected.items():
        info = decoder.probe(encode(waves(50, 41), subsampling=subsampling))
        assert (info.width, info.height, info.components) == (50, 41, 3)
        assert (info.subsampling_x, info.subsampling_y) == factors
        assert info.indexable
        assert not info.progressive
    assert decoder.probe(encode_440(waves(50, 41))).subsampling_y == 2
    grey = decoder.probe(encode(waves(50, 41), "L"))
    assert (grey.components, grey.subsampling_x, grey.subsampling_y, grey.indexable) == (1, 1, 1, 1)
