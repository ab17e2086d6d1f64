import contextlib
import io
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from ffcv.fields.rgb_image import encode_jpeg, resizer
from images import draw
from PIL import Image

from ffcv_imagenet import native
from ffcv_imagenet.data.format.index import EVERY
from ffcv_imagenet.data.format.manifest import MAX_PIXELS, WriteParameters
from ffcv_imagenet.data.sources.pixels import decode_image, read_file
from ffcv_imagenet.data.write.encode import (
    CHUNK_SIZE,
    encode_content,
    encode_image,
    encode_sample,
    encode_samples,
    stored_size,
)

REPOSITORY = Path(__file__).parents[2]

RAW = WriteParameters(
    mode="raw",
    max_resolution=None,
    resize="area",
    compress_probability=None,
    smart_threshold=2.0,
    jpeg_quality=90,
    reencode=True,
    subset=-1,
    shuffle=False,
    seed=0,
    page_size_mib=2,
    max_pixels=MAX_PIXELS,
)


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def jpeg(image, grey=False, cmyk=False, **options):
    file = io.BytesIO()
    Image.fromarray(image).convert("L" if grey else "CMYK" if cmyk else "RGB").save(file, "JPEG", **options)
    return file.getvalue()


def pixels(encoded):
    return np.frombuffer(encoded.data, np.uint8).reshape(encoded.height, encoded.width, 3)


def with_(**changes):
    return WriteParameters(**{**RAW.__dict__, **changes})


@pytest.mark.parametrize("resolution", [1, 7, 33, 40, 1000])
@pytest.mark.parametrize(("height", "width"), [(40, 30), (30, 40), (33, 33), (41, 40), (1, 9), (97, 89)])
def test_shrinks_as_ffcv_does(height, width, resolution):
    image = draw(height, width)
    small = pixels(encode_content(png(image), "raw", with_(max_resolution=resolution)))
    assert small.shape[:2] == stored_size(height, width, resolution)
    assert max(small.shape[:2]) <= resolution
    if min(height, width) * resolution >= max(height, width):  # else FFCV makes an image of no pixels
        np.testing.assert_array_equal(small, resizer(image, resolution))


@pytest.mark.parametrize(("height", "width"), [(1, 100), (100, 1), (2, 999), (1, 1)])
def test_shrinking_leaves_a_pixel(height, width):
    small = stored_size(height, width, 10)
    assert min(small) == 1
    assert max(small) == min(10, max(height, width))


JPEG_KINDS = [{}, {"grey": True}, {"progressive": True}, {"subsampling": "4:4:4"}, {"cmyk": True}]


@pytest.mark.parametrize(("height", "width"), [(99, 50), (201, 70), (90, 1000), (51, 50)])
@pytest.mark.parametrize("options", JPEG_KINDS)
def test_large_jpegs_are_shrunk_as_ffcv_does(height, width, options):
    content = jpeg(draw(height, width, noise=40), quality=95, **options)
    stored = pixels(encode_content(content, "raw", with_(max_resolution=50)))
    np.testing.assert_array_equal(stored, resizer(decode_image(content, MAX_PIXELS), 50))


@pytest.mark.parametrize("resize", ["area", "triangle", "bicubic"])
@pytest.mark.parametrize("options", JPEG_KINDS)
def test_all_file_types_are_shrunk_by_one_filter(resize, options):
    content, parameters = jpeg(draw(99, 70, noise=40), **options), with_(max_resolution=50, resize=resize)
    as_png = png(decode_image(content, MAX_PIXELS))
    assert encode_content(content, "jpg", parameters) == encode_content(as_png, "jpg", parameters)


def test_triangle_is_pillows_bilinear():
    image = draw(201, 170, noise=100)
    stored = pixels(encode_content(png(image), "raw", with_(max_resolution=90, resize="triangle")))
    pillow = Image.fromarray(image).resize(stored.shape[1::-1], Image.Resampling.BILINEAR)
    assert np.abs(stored.astype(int) - np.asarray(pillow)).max() <= 1


@pytest.mark.parametrize("mode", ["jpg", "raw"])
def test_without_reencoding_small_jpegs_are_kept_byte_for_byte(mode):
    parameters = with_(max_resolution=50, reencode=False)
    content = jpeg(draw(40, 50), quality=71)
    kept = encode_content(content, mode, parameters)
    assert (kept.height, kept.width) == (40, 50)
    assert (kept.data == content) is (mode == "jpg")
    assert (kept.entries == native.build_index(content, EVERY)) is (mode == "jpg")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda: jpeg(draw(40, 51)), id="too large"),
        pytest.param(lambda: jpeg(draw(40, 50), progressive=True), id="progressive"),
        pytest.param(lambda: jpeg(draw(40, 50), cmyk=True), id="cmyk"),
        pytest.param(lambda: png(draw(40, 50)), id="png"),
    ],
)
def test_without_reencoding_other_images_are_compressed_as_ever(content):
    data = content()
    assert encode_content(data, "jpg", with_(max_resolution=50, reencode=False)) == encode_content(
        data, "jpg", with_(max_resolution=50)
    )


def test_without_reencoding_a_damaged_jpeg_is_an_error(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(jpeg(draw(40, 50))[:-300])
    reason = encode_sample(reader([str(tmp_path / "cut.jpg")]), 0, "jpg", with_(reencode=False))
    assert isinstance(reason, ValueError)
    assert str(reason).startswith("image file is truncated")


def test_raw_keeps_the_pixels():
    image = draw(11, 7)
    encoded = encode_image(image, "raw", RAW)
    assert (encoded.is_jpeg, encoded.height, encoded.width) == (False, 11, 7)
    np.testing.assert_array_equal(np.frombuffer(encoded.data, np.uint8).reshape(11, 7, 3), image)


@pytest.mark.parametrize("quality", [1, 90, 100])
def test_jpg_is_ffcvs_jpeg(quality):
    image = draw(11, 7)
    encoded = encode_image(image, "jpg", with_(jpeg_quality=quality))
    assert (encoded.is_jpeg, encoded.height, encoded.width) == (True, 11, 7)
    assert encoded.data == encode_jpeg(image, quality).tobytes()


def test_smart_compares_raw_with_threshold_times_jpeg():
    image = draw(60, 60)
    jpeg = encode_image(image, "jpg", RAW)
    ratio = image.nbytes / len(jpeg.data)
    assert encode_image(image, "smart", with_(smart_threshold=ratio * 0.999)) == jpeg
    assert encode_image(image, "smart", with_(smart_threshold=ratio * 1.001)) == encode_image(image, "raw", RAW)


@pytest.mark.parametrize("mode", ["raw", "jpg", "smart"])
def test_side_that_no_format_holds(mode):
    with pytest.raises(ValueError, match=r"65501 x 1 pixels, allowed are 65500 a side: .*--write\.max_resolution"):
        encode_image(np.zeros((1, 65501, 3), np.uint8), mode, RAW)
    assert encode_image(np.zeros((1, 65500, 3), np.uint8), mode, RAW).width == 65500


def test_image_larger_than_a_page():
    page = 2 << 20
    width = page // 3 // 256
    encode_image(np.zeros((256, width, 3), np.uint8), "raw", RAW)
    with pytest.raises(
        ValueError, match=r"more than a page of 2 MiB: .*--write\.max_resolution .*--write\.page_size_mib"
    ):
        encode_image(np.zeros((257, width, 3), np.uint8), "raw", RAW)
    encode_content(png(np.zeros((257, width, 3), np.uint8)), "raw", with_(max_resolution=200))


@pytest.fixture
def paths(tmp_path):
    """More files than two workers are given at once; some are large, so that chunks end out of order."""
    names = []
    for number in range(12 * CHUNK_SIZE + 3):
        side = 600 if number % (2 * CHUNK_SIZE) == 0 else 4
        names.append(str(tmp_path / f"{number:04}.png"))
        Image.fromarray(np.full((side, side, 3), number % 256, np.uint8)).save(names[-1], compress_level=0)
    return names


def reader(paths):
    return lambda number: read_file(paths[number])


def all_images(paths, num_workers):
    return list(encode_samples(reader(paths), range(len(paths)), ["raw"] * len(paths), RAW, num_workers))


def started_since(before):
    return set(threading.enumerate()) - before


def wait_for_threads(before):
    """Wait for the end of all threads that were started since ``before``."""
    deadline = time.monotonic() + 10
    while started_since(before):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_files_come_in_order_and_the_workers_end(paths):
    before = set(threading.enumerate())
    assert [image.data[0] for image in all_images(paths, 2)] == [number % 256 for number in range(len(paths))]
    wait_for_threads(before)


def test_more_workers_than_files(paths):
    assert len(all_images(paths[:3], 8)) == 3


def test_no_files():
    assert all_images([], 2) == []


def test_a_file_that_cannot_be_stored_is_its_reason_in_its_place(paths):
    Path(paths[90]).write_bytes(b"")
    Path(paths[20]).unlink()
    Image.new("RGB", (1000, 1000)).save(paths[3])
    images = all_images(paths, 2)
    reasons = {number: str(image) for number, image in enumerate(images) if isinstance(image, ValueError)}
    assert list(reasons) == [3, 20, 90]
    assert reasons[3].startswith("1000 x 1000 pixels take 3000000 bytes")
    assert reasons[20] == "cannot be read: No such file or directory"
    assert reasons[90] == "not an image"


def test_closing_early_stops_the_workers(paths):
    before = set(threading.enumerate())
    with contextlib.closing(encode_samples(reader(paths), range(len(paths)), ["raw"] * len(paths), RAW, 2)) as images:
        next(images)
        assert len(started_since(before)) == 2
    wait_for_threads(before)


def test_another_error_in_a_worker_is_raised(paths):
    paths[40] = None  # our own mistake, not the file's
    with pytest.raises(TypeError):
        all_images(paths, 2)


def test_opencv_encodes_rgb_as_rgb():
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 0] = 250
    decoded = cv2.imdecode(np.frombuffer(encode_image(image, "jpg", RAW).data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert decoded[..., 0].min() > 200
    assert decoded[..., 2].max() < 50
