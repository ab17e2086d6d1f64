"""A small JPEG encoder (ITU-T T.81, baseline) for files as no library writes them: odd markers, scans and tables."""

import math
import struct

import numpy as np

ZIGZAG = sorted(range(64), key=lambda i: (i // 8 + i % 8, (i // 8 if (i // 8 + i % 8) % 2 else i % 8)))
#: Huffman tables by (class, number): how many codes there are of 1 to 16 bits, and what they stand for.
DC_CODES = ([0, 0, 0, 12, *[0] * 12], list(range(12)))
AC_SYMBOLS = [run << 4 | size for run in range(16) for size in range(1, 11)]
AC_CODES = ([0, 0, 0, 0, 0, 0, 0, 162, *[0] * 8], [0x00, 0xF0, *AC_SYMBOLS])

_BASIS = np.array(
    [[np.cos((2 * x + 1) * u * np.pi / 16) * (0.125**0.5 if u == 0 else 0.5) for x in range(8)] for u in range(8)]
)


def segment(marker, body):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def table_segment(kind, number, table):
    return segment(0xC4, bytes([kind << 4 | number, *table[0], *table[1]]))


def interval_segment(interval):
    return segment(0xDD, struct.pack(">H", interval))


class _Bits:
    def __init__(self):
        self.text = []

    def put(self, value, length):
        self.text.append(f"{value:0{length}b}" if length else "")

    def flush(self):
        """The bits so far, filled up with ones and stuffed; empties them."""
        bits, self.text = "".join(self.text), []
        bits += "1" * (-len(bits) % 8)
        return int(bits or "0", 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")


def _codes(table):
    code, codes, values = 0, {}, iter(table[1])
    for length, count in enumerate(table[0], 1):
        for _ in range(count):
            codes[next(values)] = (code, length)
            code += 1
        code <<= 1
    return codes


def _put_value(bits, codes, run, value):
    size = abs(value).bit_length()
    bits.put(*codes[run << 4 | size])
    bits.put(value if value >= 0 else value + (1 << size) - 1, size)


def _put_block(bits, block, predictor, dc, ac):
    _put_value(bits, dc, 0, block[0] - predictor)
    run = 0
    for value in block[1:]:
        if value == 0:
            run += 1
            continue
        while run > 15:
            bits.put(*ac[0xF0])
            run -= 16
        _put_value(bits, ac, run, value)
        run = 0
    if run:
        bits.put(*ac[0x00])


class Encoder:
    """A picture's components ([H, W] uint8 each) as blocks of coefficients; ``factors``: (h, v) of each component."""

    def __init__(self, planes, factors, quantiser=6):
        self.height, self.width = planes[0].shape
        self.factors, self.quantiser = factors, quantiser
        self.h, self.v = max(h for h, _ in factors), max(v for _, v in factors)
        self.columns, self.rows = -(-self.width // (8 * self.h)), -(-self.height // (8 * self.v))
        self.blocks = [self._blocks(plane, *factor) for plane, factor in zip(planes, factors, strict=True)]

    def _blocks(self, plane, h, v):
        step_x, step_y = self.h // h, self.v // v
        rows = np.minimum(np.arange(self.rows * v * 8 * step_y), self.height - 1)
        columns = np.minimum(np.arange(self.columns * h * 8 * step_x), self.width - 1)
        samples = plane[rows][:, columns].astype(float)
        samples = samples.reshape(len(rows) // step_y, step_y, len(columns) // step_x, step_x).mean((1, 3)) - 128
        blocks = samples.reshape(self.rows * v, 8, self.columns * h, 8).transpose(0, 2, 1, 3)
        coefficients = np.einsum("ux,abxy,vy->abuv", _BASIS, blocks, _BASIS) / self.quantiser
        return np.rint(coefficients).astype(int).reshape(*blocks.shape[:2], 64)[..., ZIGZAG].tolist()

    def quantiser_segment(self):
        return segment(0xDB, bytes([0] + [self.quantiser] * 64))

    def frame_segment(self, size=None):
        height, width = size or (self.height, self.width)
        parts = [bytes([i + 1, h << 4 | v, 0]) for i, (h, v) in enumerate(self.factors)]
        return segment(0xC0, struct.pack(">BHHB", 8, height, width, len(parts)) + b"".join(parts))

    def scan(self, components=None, interval=0, dc=DC_CODES, ac=AC_CODES):
        """SOS and the coded blocks of some components, with a restart marker after every ``interval`` MCUs."""
        components = range(len(self.factors)) if components is None else components
        bits, dc, ac, out = _Bits(), _codes(dc), _codes(ac), bytearray()
        predictors = dict.fromkeys(components, 0)
        for number, mcu in enumerate(self._mcus(list(components))):
            if interval and number and number % interval == 0:
                out += bits.flush() + bytes([0xFF, 0xD0 + (number // interval - 1) % 8])
                predictors = dict.fromkeys(components, 0)
            for c, y, x in mcu:
                block = self.blocks[c][y][x]
                _put_block(bits, block, predictors[c], dc, ac)
                predictors[c] = block[0]
        selectors = b"".join(bytes([c + 1, 0]) for c in components)
        return segment(0xDA, bytes([len(components)]) + selectors + b"\0\x3f\0") + bytes(out) + bits.flush()

    def _mcus(self, components):
        if len(components) == 1:  # one block each, and none that lie outside the picture
            [c] = components
            h, v = self.factors[c]
            columns = math.ceil(math.ceil(self.width * h / self.h) / 8)
            rows = math.ceil(math.ceil(self.height * v / self.v) / 8)
            return [[(c, y, x)] for y in range(rows) for x in range(columns)]
        return [
            [
                (c, row * v + y, column * h + x)
                for c in components
                for h, v in [self.factors[c]]
                for y in range(v)
                for x in range(h)
            ]
            for row in range(self.rows)
            for column in range(self.columns)
        ]
