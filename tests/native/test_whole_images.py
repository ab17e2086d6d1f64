"""Whole images for the writer: the pixels of libjpeg-turbo, its files, and OpenCV's shrinking, bit by bit."""

import io

import cv2
import numpy as np
import pytest
from jpeg_encoder import AC_CODES, DC_CODES, Encoder, segment, table_segment
from jpeg_samples import SUBSAMPLINGS, encode, encode_440, noise, photographs, size_of, waves
from native_library import Decoder, NativeError
from PIL import Image

from ffcv_imagenet import native
from ffcv_imagenet.data.sources.pixels import decode_image
from ffcv_imagenet.native import Error

SIZES = [(1, 1), (5, 1), (1, 9), (7, 9), (8, 8), (15, 16), (16, 17), (17, 33), (33, 31), (64, 48), (129, 65), (500, 37)]
RESTARTS = [{}, {"restart_marker_blocks": 1}, {"restart_marker_blocks": 5}, {"restart_marker_rows": 1}]


def pillow(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def opencv(rgb, quality):
    return cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def plain(jpeg):
    return native.read_plain_image(jpeg, 1 << 30)


@pytest.mark.parametrize("layout", [*SUBSAMPLINGS, "grey"])
@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
def test_the_pixels_are_pillows(decoder, size, layout):
    mode = {"mode": "L"} if layout == "grey" else {"subsampling": layout}
    for picture in (noise(*size), waves(*size)):
        for quality in (1, 30, 75, 90, 100):
            jpeg = encode(picture, quality=quality, **mode)
            if native._probe(jpeg).plain:
                np.testing.assert_array_equal(decoder.read_plain(jpeg, size), pillow(jpeg))
            else:  # chroma of two samples or one is not smoothed
                assert layout in ("4:2:2", "4:2:0")
                assert size[0] <= 4
            np.testing.assert_array_equal(decode_image(jpeg, 1 << 30), pillow(jpeg))


@pytest.mark.parametrize("layout", [*SUBSAMPLINGS, "grey"])
def test_the_pixels_of_photographs_are_pillows(decoder, layout):
    mode = {"mode": "L"} if layout == "grey" else {"subsampling": layout}
    for picture in photographs():
        for cut in (picture, picture[3:-4, 5:-6]):
            for options in ({"quality": 95}, {"quality": 40, "optimize": True}):
                jpeg = encode(cut, **mode, **options)
                np.testing.assert_array_equal(decoder.read_plain(jpeg, size_of(jpeg)), pillow(jpeg))


@pytest.mark.parametrize("options", RESTARTS, ids=str)
@pytest.mark.parametrize("layout", [*SUBSAMPLINGS, "grey"])
def test_the_pixels_between_restart_markers_are_pillows(decoder, layout, options):
    mode = {"mode": "L"} if layout == "grey" else {"subsampling": layout}
    for picture in (noise(83, 141), waves(141, 50)):
        jpeg = encode(picture, **mode, **options)
        np.testing.assert_array_equal(decoder.read_plain(jpeg, size_of(jpeg)), pillow(jpeg))


def test_others_read_what_is_not_plain():
    picture = photographs()[0][:90, :101]
    kinds = {
        "4:4:0": encode_440(picture),
        "RGB": encode(picture, subsampling="4:4:4", keep_rgb=True),
        "CMYK": encode(picture, "CMYK"),
        "progressive": encode(picture, progressive=True),
    }
    for jpeg in kinds.values():
        assert plain(jpeg) is None
        with pytest.raises(NativeError) as caught:
            Decoder().read_plain(jpeg, size_of(jpeg))
        assert caught.value.code == Error.UNSUPPORTED
        np.testing.assert_array_equal(decode_image(jpeg, 1 << 30), pillow(jpeg))


def test_pillow_is_asked_where_it_reads_more_than_pixels():
    picture, several = waves(40, 30), io.BytesIO()
    Image.fromarray(picture).save(several, "MPO", save_all=True, append_images=[Image.fromarray(picture[::-1])])
    assert b"MPF\0" in several.getvalue()
    assert plain(several.getvalue()) is None
    np.testing.assert_array_equal(decode_image(several.getvalue(), 1 << 30), pillow(several.getvalue()))
    jpeg, photoshop = encode(picture), b"Photoshop 3.0\0"
    refused = jpeg[:2] + segment(0xED, photoshop + b"8BIM\4\4") + jpeg[2:]
    assert plain(refused) is None
    with pytest.raises(ValueError, match="not an image"):
        decode_image(refused, 1 << 30)
    for rest in (b"", b"8BIM\4\4\0", b"8BIM\4\4\0\0\0\0\0\4abcd", b"8BIM", b"8BI", b"8BIM\3\xed\0\0\0\0\0\1a"):
        taken = jpeg[:2] + segment(0xED, photoshop + rest) + jpeg[2:]
        np.testing.assert_array_equal(plain(taken), pillow(taken))


def test_more_pixels_than_allowed_are_left_to_others():
    jpeg = encode(waves(40, 30))
    assert native.read_plain_image(jpeg, 1200) is not None
    assert native.read_plain_image(jpeg, 1199) is None


@pytest.mark.parametrize("layout", ["4:4:4", "4:2:2", "4:2:0", "grey"])
def test_wild_coefficients_give_libjpegs_pixels_or_none(layout):
    """Quantisers that a file was not made with lead out of the range of samples, and far out of 16 bits."""
    mode = {"mode": "L"} if layout == "grey" else {"subsampling": layout}
    seen = set()
    for picture in (noise(61, 45), waves(61, 45)):
        jpeg = encode(picture, quality=100, **mode)
        at = jpeg.index(b"\xff\xdb")
        for factor in (1, 3, 10, 20, 40, 100, 255):
            wild = bytearray(jpeg)
            length = 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
            for place in range(at + 5, at + length):
                if (place - at - 5) % 65 != 64:  # else the number of the next table
                    wild[place] = factor
            got = [outcome(Decoder(simd).read_plain, bytes(wild), (61, 45)) for simd in (True, False)]
            assert (got[0] is None) == (got[1] is None)
            seen.add(got[0] is None)
            for pixels in got:
                if pixels is not None:
                    np.testing.assert_array_equal(pixels, pillow(bytes(wild)))
            np.testing.assert_array_equal(decode_image(bytes(wild), 1 << 30), pillow(bytes(wild)))
    assert seen == {True, False}


def outcome(function, *arguments):
    try:
        return function(*arguments)
    except NativeError:
        return None


def test_quantisers_of_16_bits(decoder):
    y, x = np.mgrid[:45, :61]
    encoder = Encoder([(x * 4).astype(np.uint8), (y * 5).astype(np.uint8), (x + y).astype(np.uint8)], [(1, 1)] * 3)
    wide = segment(0xDB, b"\x10" + b"\0\6" * 64)
    tables = table_segment(0, 0, DC_CODES) + table_segment(1, 0, AC_CODES)
    # Extended sequential, which T.81 asks for then.
    frame = b"\xff\xc1" + encoder.frame_segment()[2:]
    jpeg = b"\xff\xd8" + wide + tables + frame + encoder.scan() + b"\xff\xd9"
    np.testing.assert_array_equal(decoder.read_plain(jpeg, (61, 45)), pillow(jpeg))


def test_damage_is_an_error_or_makes_libjpegs_pixels():
    jpeg, rng = encode(photographs()[1][:64, :80], restart_marker_blocks=4), np.random.default_rng(0)
    decoders, taken = [Decoder(True), Decoder(False)], 0
    for _ in range(400):
        damaged = bytearray(jpeg)
        for place in rng.integers(2, len(jpeg), 2):
            damaged[place] = rng.integers(256)
        cut = bytes(damaged[: rng.integers(len(jpeg) // 2, len(jpeg) + 1)] if rng.integers(2) else damaged)
        got = [outcome(decoder.read_plain, cut, (80, 64)) for decoder in decoders]
        assert (got[0] is None) == (got[1] is None)
        if got[0] is not None:
            taken += 1
            np.testing.assert_array_equal(got[0], pillow(cut))
            np.testing.assert_array_equal(got[1], got[0])
    assert 20 < taken < 380
    np.testing.assert_array_equal(decoders[0].read_plain(jpeg, (80, 64)), pillow(jpeg))


def test_crops_of_a_file_whose_whole_image_was_read(decoder):
    """Whole images leave out a part of the Huffman tables, which crops need."""
    jpeg = encode(photographs()[0][:200, :300], optimize=True)
    expected = Decoder().crop(jpeg, (300, 200), (250, 150, 40, 40), (20, 20))
    decoder.read_plain(jpeg, (300, 200))
    np.testing.assert_array_equal(decoder.crop(jpeg, (300, 200), (250, 150, 40, 40), (20, 20)), expected)


def test_another_size_is_an_error(decoder):
    jpeg = encode(waves(40, 30))
    for size in ((41, 30), (40, 29), (30, 40)):
        with pytest.raises(NativeError) as caught:
            decoder.read_plain(jpeg, size)
        assert caught.value.code == Error.SIZE_MISMATCH


@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
def test_the_files_are_opencvs_and_the_index_theirs(decoder, size):
    for picture in (noise(*size), waves(*size)):
        for quality, k in ((1, 1), (49, 3), (50, 4), (90, 4), (99, 255), (100, 2)):
            jpeg, index = decoder.write(picture, quality, k)
            assert jpeg == opencv(picture, quality)
            np.testing.assert_array_equal(index, decoder.index(jpeg, k))


def test_the_files_of_every_quality_are_opencvs(decoder):
    picture = photographs()[0][200:251, 300:377]
    for quality in range(1, 101):
        assert decoder.write(picture, quality)[0] == opencv(picture, quality)


def test_the_files_of_photographs_are_opencvs(decoder):
    for picture in photographs():
        jpeg, index = decoder.write(picture, 90, 4)
        assert jpeg == opencv(picture, 90)
        np.testing.assert_array_equal(index, decoder.index(jpeg, 4))


def test_all_colours_are_written_as_opencv_writes_them(decoder):
    """Each of 2^18 colours over a 2 x 2 square, so that its chroma is in the file unmixed."""
    steps = np.arange(0, 256, 4, dtype=np.uint8) | 3 * (np.arange(64, dtype=np.uint8) % 2)
    red, green, blue = np.meshgrid(steps, steps, steps)
    colours = np.stack([red, green, blue], -1).reshape(512, 512, 3)
    picture = colours.repeat(2, 0).repeat(2, 1)
    assert decoder.write(picture, 100)[0] == opencv(picture, 100)


def test_extreme_pictures_are_written_as_opencv_writes_them(decoder):
    """The largest coefficients that there are: black and white in the signs of each basis function."""
    rows = []
    for v in range(8):
        basis = [np.cos((2 * np.arange(8) + 1) * u * np.pi / 16) for u in range(8)]
        rows.append(np.hstack([np.where(np.outer(basis[v], basis[u]) > 0, 255, 0) for u in range(8)]))
    signs = np.vstack(rows).astype(np.uint8)
    pictures = [np.stack([signs] * 3, -1), 255 - np.stack([signs] * 3, -1), np.stack([signs, 255 - signs, signs.T], -1)]
    for picture in pictures:
        jpeg, index = decoder.write(picture, 100, 1)
        assert jpeg == opencv(picture, 100)
        np.testing.assert_array_equal(index, decoder.index(jpeg, 1))


def test_a_file_that_does_not_fit_is_an_error(decoder):
    picture = noise(64, 64)
    whole = decoder.write(picture, 95)[0]
    for capacity in (0, 1, 699, 700, 1000, len(whole) - 2, len(whole) - 1):
        with pytest.raises(NativeError) as caught:
            decoder.write(picture, 95, capacity=capacity)
        assert caught.value.code == Error.CAPACITY
    assert decoder.write(picture, 95, capacity=len(whole))[0] == whole


@pytest.mark.parametrize("shape", [(1, 65501), (65501, 1)])
def test_a_side_too_long_for_libjpeg_is_an_error(shape):
    with pytest.raises(ValueError, match="invalid argument"):
        native.write_jpeg(np.zeros((*shape, 3), np.uint8), 90)


def test_shrinking_is_opencvs(decoder):
    rng, shrunk, left = np.random.default_rng(0), 0, 0
    for number in range(400):
        height, width = rng.integers(1, 60 if number % 2 else 300, 2).tolist()
        out_height, out_width = int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))
        if number % 3 == 0:  # one ratio for both, as the writer has it
            ratio = rng.uniform()
            out_height, out_width = max(1, int(ratio * height)), max(1, int(ratio * width))
        picture = noise(width, height, number)
        small = outcome(decoder.shrink_area, picture, (out_width, out_height))
        if small is None:
            assert height % out_height == width % out_width == 0
            left += 1
            continue
        shrunk += 1
        expected = cv2.resize(picture, (out_width, out_height), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(small, expected)
    assert shrunk > 350
    assert left > 3


def test_photographs_are_shrunk_as_by_opencv(decoder):
    for picture in photographs():
        for height, width in ((333, 500), (426, 639), (50, 75), (2, 3), (427, 3)):
            expected = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            np.testing.assert_array_equal(decoder.shrink_area(picture, (width, height)), expected)


@pytest.mark.parametrize(("width", "out_width"), [(2001, 2000), (3001, 1500), (1999, 333), (5000, 4999)])
def test_pixels_that_an_area_hardly_touches_do_not_count(decoder, width, out_width):
    picture = noise(width, 5)
    for small, side in ((picture, (out_width, 4)), (picture.transpose(1, 0, 2), (4, out_width))):
        expected = cv2.resize(small, side, interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(decoder.shrink_area(small, side), expected)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (11, 5), (5, 11), (-1, 5)])
def test_nothing_is_enlarged(decoder, size):
    picture, out = noise(10, 10), np.empty(300, np.uint8)
    with pytest.raises(NativeError) as caught:
        decoder.check(
            decoder.library.fic_shrink_area(decoder.context, picture.ctypes.data, 10, 10, *size, out.ctypes.data)
        )
    assert caught.value.code == Error.ARGUMENT
