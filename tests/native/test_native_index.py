"""The entry-point index: the same pixels with and without it, its layout, and indices that are wrong."""

import native_library as native
import numpy as np
import pytest
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
from native_library import Decoder, NativeError

from ffcv_imagenet.native import Error

RESTARTS = [{}, {"restart_marker_blocks": 1}, {"restart_marker_blocks": 5}, {"restart_marker_rows": 1}]


@pytest.mark.parametrize("options", RESTARTS, ids=str)
@pytest.mark.parametrize("subsampling", [*SUBSAMPLINGS, "grey"])
@pytest.mark.parametrize("k", [1, 3, 4, 255])
def test_pixels_do_not_depend_on_the_index(decoder, subsampling, options, k):
    pixels, rng = noise(141, 83), np.random.default_rng(k)
    mode = {"mode": "L"} if subsampling == "grey" else {"subsampling": subsampling}
    jpeg = encode(pixels, **mode, **options)
    index = decoder.index(jpeg, k)
    assert index.size
    boxes = [
        (0, 0, 141, 83),
        (0, 0, 1, 1),
        (140, 82, 1, 1),
        (64, 32, 16, 16),
        *(random_box(rng, 141, 83) for _ in range(12)),
    ]
    for box in boxes:
        flip = bool(rng.integers(2))
        plain = decoder.crop(jpeg, (141, 83), box, (21, 17), flip)
        assert np.array_equal(decoder.crop(jpeg, (141, 83), box, (21, 17), flip, index, k), plain)


def test_photographs(decoder):
    rng = np.random.default_rng(1)
    for pixels in photographs():
        for jpeg in (encode(pixels), encode(pixels, subsampling="4:4:4", optimize=True), encode_440(pixels)):
            size, index = size_of(jpeg), decoder.index(jpeg)
            for _ in range(10):
                box = random_box(rng, *size)
                a = decoder.crop(jpeg, size, box, (64, 64))
                assert np.array_equal(decoder.crop(jpeg, size, box, (64, 64), index=index), a)


def test_scalar_and_simd_write_the_same_index():
    jpeg = encode(photographs()[0], restart_marker_blocks=11)
    assert np.array_equal(Decoder(simd=True).index(jpeg, 4), Decoder(simd=False).index(jpeg, 4))


def test_size():
    """About 3 % at the usual quality; docs/mcu_index.md has the formula."""
    jpeg = encode(photographs()[0][:375, :500])
    index = Decoder().index(jpeg, 4)
    columns, rows = -(-32 // 4), 24
    assert index.size == rows * (columns * 8 + 4)
    assert index.size < 0.04 * len(jpeg)


def test_layout_is_as_documented(decoder):
    """Read the entries as docs/mcu_index.md says, with numpy: byte positions, predictors, restart markers."""
    jpeg = encode(noise(100, 70), subsampling="4:2:0", restart_marker_rows=1)
    k, columns, rows = 2, 4, 5
    index = decoder.index(jpeg, k)
    records = index[: rows * columns * 8].view("<u8").reshape(rows, columns)
    bases = index[rows * columns * 8 :][: rows * 4].view("<u4")
    assert index.size % 8 == 0
    offsets = (records & np.uint64((1 << 28) - 1)).astype(np.int64)
    assert (offsets[:, 0] == 0).all()
    assert (np.diff(offsets, axis=1) > 0).all()
    # The rows begin behind the scan's header and behind each restart marker, with predictors of 0.
    scan = jpeg.index(b"\xff\xda")
    starts = [scan + 2 + int.from_bytes(jpeg[scan + 2 : scan + 4], "big")]
    starts += [jpeg.index(bytes((0xFF, 0xD0 + i))) + 2 for i in range(rows - 1)]
    assert bases.tolist() == [start * 8 for start in starts]
    assert (records[:, 0] >> np.uint64(28) == 0).all()
    assert (records[:, 1:] >> np.uint64(28) != 0).any()


def test_predictors_continue_without_restart_markers(decoder):
    """A flat picture: every DC difference but the first is 0, so all predictors behind the first MCU are equal."""
    jpeg = encode(np.full((64, 64, 3), (200, 90, 30), np.uint8), subsampling="4:4:4")
    records = decoder.index(jpeg, 1)[: 64 * 8].view("<u8")
    fields = [(records >> np.uint64(28 + 12 * c)).astype(np.int64) & 4095 for c in range(3)]
    signed = [np.where(field < 2048, field, field - 4096) for field in fields]
    for component, sign in zip(signed, (-1, -1, 1), strict=True):
        assert component[0] == 0
        assert len(set(component[1:])) == 1
        assert np.sign(component[1]) == sign


def test_files_that_cannot_be_indexed(decoder):
    for jpeg in (encode(waves(50, 40), progressive=True), encode(waves(50, 40), "CMYK")):
        assert decoder.index(jpeg).size == 0
        # An index for such a file is ignored.
        fake = np.zeros(64, np.uint8)
        a, b = (decoder.crop(jpeg, (50, 40), (0, 0, 50, 40), (20, 20), index=i) for i in (None, fake))
        assert np.array_equal(a, b)


def test_damaged_data_are_noticed_while_indexing(decoder):
    for options in ({}, {"restart_marker_blocks": 2}):
        jpeg = encode(noise(64, 64), **options)
        for cut in (len(jpeg) // 2, len(jpeg) - 4):
            with pytest.raises(NativeError) as caught:
                decoder.index(jpeg[:cut])
            assert caught.value.code in (Error.TRUNCATED, Error.RESTART)


def test_arguments_of_build_index(decoder):
    data, library = native.as_bytes(encode(waves(50, 40))), decoder.library
    out = np.zeros(1000, np.uint8)
    size = library.fic_build_index(decoder.context, data.ctypes.data, data.size, 4, None, 0)
    assert 0 < size < out.size
    short = library.fic_build_index(decoder.context, data.ctypes.data, data.size, 4, out.ctypes.data, size - 1)
    assert short == -14
    assert not out.any()
    for k in (0, -1, 256):
        code = library.fic_build_index(decoder.context, data.ctypes.data, data.size, k, out.ctypes.data, out.size)
        assert code == Error.ARGUMENT


@pytest.fixture
def indexed(decoder):
    jpeg = encode(noise(120, 80))
    return jpeg, decoder.index(jpeg, 2)


def code_of(decoder, jpeg, index, box=(0, 0, 120, 80), k=2):
    try:
        decoder.crop(jpeg, (120, 80), box, (16, 16), index=index, k=k)
    except NativeError as error:
        return error.code
    return 0


def test_indices_of_another_size(decoder, indexed):
    jpeg, index = indexed
    for wrong, k in ((index[:-8], 2), (np.append(index, index[:8]), 2), (index, 3), (index[:0], 2)):
        assert code_of(decoder, jpeg, wrong, k=k) == Error.INDEX
    for k in (0, -1, 256):
        assert code_of(decoder, jpeg, index, k=k) == Error.ARGUMENT


def test_positions_outside_the_data(decoder, indexed):
    jpeg, index = indexed
    for value in (0, 8 * len(jpeg), 2**32 - 1):
        wrong = index.copy()
        bases = wrong[5 * 4 * 8 :][: 5 * 4].view("<u4")
        bases[2] = value
        assert code_of(decoder, jpeg, wrong) == Error.INDEX


def test_positions_that_go_backwards(decoder, indexed):
    jpeg, index = indexed
    wrong = index.copy()
    bases = wrong[5 * 4 * 8 :][: 5 * 4].view("<u4")
    bases[:] = bases[::-1].copy()
    assert code_of(decoder, jpeg, wrong) == Error.INDEX


def test_of_two_rows_decoded_in_turn_the_upper_ones_fault_is_told(decoder, indexed):
    jpeg, index = indexed
    damaged, wrong = bytearray(jpeg), index.copy()
    starts = index[5 * 4 * 8 :][: 5 * 4].view("<u4") // 8
    damaged[starts[2] + 2 : starts[3] - 2] = bytes([0xFE]) * (starts[3] - starts[2] - 4)
    code = code_of(decoder, bytes(damaged), index)
    assert code in (Error.CODE, Error.COEFFICIENT)
    # The fourth row would end here, after the third.
    wrong[5 * 4 * 8 :][: 5 * 4].view("<u4")[4] = 2**32 - 1
    assert code_of(decoder, jpeg, wrong) == Error.INDEX
    assert code_of(decoder, bytes(damaged), wrong) == code


def test_any_index_is_survived(decoder, indexed):
    jpeg, index = indexed
    rng, codes = np.random.default_rng(2), set()
    for _ in range(400):
        wrong = index.copy()
        at = rng.integers(0, wrong.size, rng.integers(1, 20))
        wrong[at] = rng.integers(0, 256, at.size)
        codes.add(code_of(decoder, jpeg, wrong, random_box(rng, 120, 80)))
    for _ in range(100):
        codes.add(code_of(decoder, jpeg, rng.integers(0, 256, index.size, np.uint8), random_box(rng, 120, 80)))
    allowed = {0, Error.TRUNCATED, Error.CODE, Error.COEFFICIENT, Error.RESTART, Error.INDEX}
    assert codes <= allowed
    assert Error.INDEX in codes
    assert Error.TRUNCATED in codes
    assert code_of(decoder, jpeg, index) == 0


def test_an_entry_inside_a_stuffed_byte(decoder):
    """The byte that two runs of MCUs share may be 0xff."""
    jpeg = encode_ones_at_block_ends()
    index = decoder.index(jpeg, 3)
    position = int(index[8:12].view("<u4")[0] & ((1 << 28) - 1)) + int(index[24:28].view("<u4")[0])
    assert jpeg[position // 8] == 0xFF
    assert position % 8
    for width in (8, 24, 40, 64):
        box = (0, 0, width, 8)
        expected = decoder.crop(jpeg, (64, 8), box, (16, 4))
        assert np.array_equal(decoder.crop(jpeg, (64, 8), box, (16, 4), index=index, k=3), expected)
