"""JPEGs as no library writes them: one verdict for a file, Pillow's, however it is stored, and one for its pixels."""

import dataclasses
import io

import numpy as np
import pytest
from jpeg_encoder import AC_CODES, DC_CODES, Encoder, interval_segment, segment, table_segment
from PIL import Image

from ffcv_imagenet import native
from ffcv_imagenet.data.format.index import EVERY
from ffcv_imagenet.data.write.encode import encode_content
from ffcv_imagenet.data.write.parameters import resolve_parameters

HEIGHT, WIDTH = 75, 107
FACTORS = {"420": [(2, 2), (1, 1), (1, 1)], "422": [(2, 1), (1, 1), (1, 1)], "444": [(1, 1)] * 3, "grey": [(1, 1)]}
SOI, EOI = b"\xff\xd8", b"\xff\xd9"
TABLES = table_segment(0, 0, DC_CODES) + table_segment(1, 0, AC_CODES)
ALL_ONES_DC = ([1] * 10 + [2] + [0] * 5, list(range(12)))


def planes(count):
    """Gradients in different directions, no two blocks alike."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / 100
    return [(30 + 170 * part).clip(0, 255).astype(np.uint8) for part in (x, y, 1 - (x + y) / 2)[:count]]


ENCODERS = {name: Encoder(planes(len(factors)), factors) for name, factors in FACTORS.items()}


def jpeg(kind="420", head=b"", tables=TABLES, frame=None, scans=None, tail=EOI, start=SOI):
    encoder = ENCODERS[kind]
    scans = encoder.scan() if scans is None else scans
    return start + head + encoder.quantiser_segment() + tables + (frame or encoder.frame_segment()) + scans + tail


def scans(kind, *components, intervals):
    """A scan for each of ``components``, in front of each the restart interval that holds from there on."""
    return b"".join(
        interval_segment(interval) + ENCODERS[kind].scan(part, interval)
        for part, interval in zip(components, intervals, strict=True)
    )


def longer(one, by=b"\0"):
    """A segment with more bytes than its content needs."""
    return one[:2] + (len(one) - 2 + len(by)).to_bytes(2, "big") + one[4:] + by


FRAME = ENCODERS["420"].frame_segment()
FILES = {
    **{f"plain {kind}": jpeg(kind) for kind in FACTORS},
    "restart markers": jpeg(scans=scans("420", None, intervals=[3])),
    "no EOI": jpeg(tail=b""),
    "no EOI, grey": jpeg("grey", tail=b""),
    "half of EOI": jpeg(tail=b"\xff"),
    "another start instead of EOI": jpeg(tail=SOI),
    "a comment between scan and EOI": jpeg(tail=segment(0xFE, b"bye") + EOI),
    "a table between scan and EOI": jpeg(tail=table_segment(0, 1, DC_CODES) + EOI),
    "bytes after EOI": jpeg(tail=EOI + b"trailer\xff\xd8\xff"),
    "fill bytes before EOI": jpeg(tail=b"\xff\xff\xff" + EOI),
    "a restart marker before EOI": jpeg(tail=b"\xff\xd0" + EOI),
    "bytes after SOI": jpeg(start=SOI + b"\0\0"),
    "bytes between segments": jpeg(head=segment(0xFE, b"x") + b"abc\0"),
    "fill bytes between segments": jpeg(head=b"\xff\xff\xff" + segment(0xFE, b"x") + b"\xff\xff"),
    "a restart marker between segments": jpeg(head=b"\xff\xd3"),
    **{
        f"marker {marker:02x} between segments": jpeg(head=segment(marker, b"12345678"))
        for marker in (0x01, 0x02, 0xBF, 0xC8, 0xCC, 0xDC, 0xDE, 0xDF, 0xF0, 0xF7, 0xFD, 0xE5)
    },
    "TEM without a segment": jpeg(head=b"\xff\x01"),
    "short JFIF": jpeg("444", head=segment(0xE0, b"JFIF\0")),
    "JFIF that just suffices": jpeg("444", head=segment(0xE0, b"JFIF\0\1\1")),
    "short Adobe": jpeg("444", head=segment(0xEE, b"Adobe\0")),
    "short colour profile": jpeg(head=segment(0xE2, b"ICC_PROFILE\0\1")),
    "short Photoshop block": jpeg(head=segment(0xED, b"Photoshop 3.0\x008BIM\4\4")),
    "a code of ones, DC": jpeg(
        tables=table_segment(0, 0, ALL_ONES_DC) + TABLES[len(table_segment(0, 0, DC_CODES)) :],
        scans=ENCODERS["420"].scan(dc=ALL_ONES_DC),
    ),
    "a table of no use with an impossible value": jpeg(tables=TABLES + table_segment(0, 1, ([0, 1] + [0] * 14, [77]))),
    "a table in use with an impossible value": jpeg(
        tables=table_segment(0, 0, ([0, 0, 0, 13, *[0] * 12], [*range(12), 77])) + table_segment(1, 0, AC_CODES)
    ),
    "a table too long by a byte": jpeg(tables=longer(TABLES[: len(table_segment(0, 0, DC_CODES))]) + TABLES),
    "frame too long by a byte": jpeg(frame=longer(FRAME)),
    "no Huffman tables": jpeg(tables=b""),
    "no frame": jpeg(frame=segment(0xFE, b"")),
    "two frames": jpeg(frame=FRAME + FRAME),
    "no pixels": jpeg(frame=ENCODERS["420"].frame_segment((0, WIDTH))),
    "the scan stands twice": jpeg("422", scans=ENCODERS["422"].scan() * 2),
    "a component stands twice": jpeg("444", scans=scans("444", None, [0], intervals=[3, 5])),
    "a scan for each component": jpeg(scans=scans("420", [0], [1], [2], intervals=[0, 0, 0])),
    "a component is missing": jpeg(scans=scans("420", [0], [1], intervals=[0, 0])),
    "restart interval changes between scans": jpeg(scans=scans("420", [0], [1], [2], intervals=[4, 1, 7])),
    "restart interval ends between scans": jpeg(scans=scans("420", [0], [1, 2], intervals=[4, 0])),
    "wrong restart interval": jpeg(scans=interval_segment(2) + scans("420", None, intervals=[1])[6:]),
    "restart markers without an interval": jpeg(scans=scans("420", None, intervals=[3])[6:]),
    "cut in the scan": jpeg()[:-400],
    "cut in the scan, with EOI": jpeg()[:-400] + EOI,
}
#: Damage over which libjpeg, and so Pillow, only warns. The writer stores Pillow's pixels; where the bytes themselves
#: lie in a .beton of others, training and verify name them as damaged.
WARNED = {
    "no Huffman tables",
    "wrong restart interval",
    "restart markers without an interval",
    "cut in the scan, with EOI",
}

MODES = {
    "raw": {"mode": "raw"},
    "shrunk": {"mode": "raw", "max_resolution": 48},
    "jpg": {"mode": "jpg"},
    "kept": {"mode": "jpg", "reencode": False},
    "smart": {"mode": "smart"},
    "proportion": {"mode": "proportion", "reencode": False},
}


def reference(content):
    """Pillow's pixels; None when it refuses the file."""
    try:
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    except Exception:
        return None


def outcome(function, *arguments):
    try:
        return function(*arguments)
    except ValueError:
        return None


def whole(content, index=None):
    """What training and verify make of a JPEG in a .beton, without resizing."""
    size = (HEIGHT, WIDTH)
    return native.decode_crop(content, size, (0, 0, *size), size, index=index, every=EVERY if index else 0)


def close(pixels, expected):
    difference = np.abs(pixels.astype(int) - expected)
    return difference.mean() < 1 and difference.max() < 30


def test_the_files_are_taken_and_refused_for_their_oddity_alone():
    verdicts = {name: reference(content) is not None for name, content in FILES.items()}
    assert all(verdicts[f"plain {kind}"] for kind in FACTORS)
    assert sum(verdicts.values()) > 15
    assert len(FILES) - sum(verdicts.values()) > 25
    assert all(verdicts[name] for name in WARNED)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FILES)
def test_a_file_is_taken_where_pillow_takes_it_with_its_pixels(name, mode):
    content, parameters = FILES[name], resolve_parameters(**MODES[mode])
    expected = reference(content)
    stored = outcome(encode_content, content, "jpg" if mode == "proportion" else parameters.mode, parameters)
    assert (stored is None) == (expected is None)
    if stored is None:
        return
    if mode == "shrunk":  # as the same pixels in a file without loss
        png = io.BytesIO()
        Image.fromarray(expected).save(png, "PNG")
        expected = np.frombuffer(encode_content(png.getvalue(), "raw", parameters).data, np.uint8)
        assert close(np.frombuffer(stored.data, np.uint8), expected)
    elif not stored.is_jpeg:
        np.testing.assert_array_equal(np.frombuffer(stored.data, np.uint8), expected.ravel())
    else:
        if stored.data == content:
            assert mode in ("kept", "proportion")
            assert name not in WARNED
        elif name not in WARNED:  # whose pixels are too wild to stay close
            assert close(reference(stored.data), expected)
        assert close(whole(stored.data), reference(stored.data))
        assert np.array_equal(whole(stored.data, stored.entries), whole(stored.data))


@pytest.mark.parametrize("name", FILES)
def test_training_and_verify_refuse_the_bytes_that_pillow_refuses(name):
    expected, pixels = reference(FILES[name]), outcome(whole, FILES[name])
    if name in WARNED:
        assert pixels is None or close(pixels, expected)
    elif name != "short Photoshop block":
        assert (pixels is None) == (expected is None)
        assert pixels is None or close(pixels, expected)


@pytest.mark.parametrize("name", FILES)
def test_what_can_be_indexed_is_what_pillow_takes(name):
    index = outcome(native.build_index, FILES[name], EVERY)
    assert not index or name == "short Photoshop block" or reference(FILES[name]) is not None


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["baseline", "progressive", "png", "bmp", "webp"])
def test_one_limit_of_pixels_for_every_format_and_mode(kind, mode):
    file = io.BytesIO()
    options = {"progressive": True} if kind == "progressive" else {}
    name = "JPEG" if kind in ("baseline", "progressive") else kind
    Image.fromarray(np.stack(planes(3), -1)).save(file, name, **options)
    parameters = dataclasses.replace(resolve_parameters(**MODES[mode]), max_pixels=HEIGHT * WIDTH)
    how = "jpg" if mode == "proportion" else parameters.mode
    assert encode_content(file.getvalue(), how, parameters).data
    with pytest.raises(ValueError, match=r"107 x 75 pixels, allowed are 8024 in all: .*--write\.max_pixels=8025"):
        encode_content(file.getvalue(), how, dataclasses.replace(parameters, max_pixels=HEIGHT * WIDTH - 1))


@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_size_in_a_header_takes_no_memory(mode):
    content = jpeg(frame=ENCODERS["420"].frame_segment((65500, 65500)))
    parameters = resolve_parameters(**MODES[mode])
    with pytest.raises(ValueError, match="65500 x 65500 pixels, allowed are 178956970 in all"):
        encode_content(content, "jpg" if mode == "proportion" else parameters.mode, parameters)


def test_the_default_limit_is_pillows():
    assert resolve_parameters().max_pixels == 2 * (1024**3 // 4 // 3)
