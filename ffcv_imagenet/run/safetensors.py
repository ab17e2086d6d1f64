"""Files of tensors in the safetensors format: a length (8 bytes, little-endian), a JSON head, the tensors' bytes.

https://huggingface.co/docs/safetensors. Reading runs no code: the head is JSON, the rest numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ffcv_imagenet.files import write_atomically

_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_METADATA = "__metadata__"
#: Longest head that is read, in bytes: that of the format's own library.
_MOST_HEAD = 100_000_000


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a file, on the CPU.

    Raises:
        OSError: it cannot be read.
        ValueError: damaged, or another format.
    """
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(_MOST_HEAD, len(content) - 8):
        raise ValueError("damaged: its head is longer than the file")
    try:
        head = json.loads(content[8 : 8 + length])
        entries = {name: entry for name, entry in head.items() if name != _METADATA}
        return {name: _tensor(name, entry, content, 8 + length) for name, entry in entries.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"damaged: {error}") from None


def _tensor(name: str, entry: Any, content: bytearray, first: int) -> Tensor:
    dtype, shape, (start, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    sizes = [*shape, start, end]
    if not all(type(size) is int and size >= 0 for size in sizes) or first + end > len(content):
        raise ValueError(f"{name} lies outside the file")
    if end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} has another size than its shape says")
    if start == end:
        return torch.empty(shape, dtype=dtype)
    # A copy, because bytes in the file need not lie where the element type wants them.
    data = torch.frombuffer(content, dtype=torch.uint8, count=end - start, offset=first + start)
    return data.clone().view(dtype).reshape(shape)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors, in the order of their names, and texts about them; the file appears whole or not at all."""
    head: dict[str, object] = {_METADATA: dict(metadata)} if metadata else {}
    parts, end = [], 0
    for name, tensor in sorted(tensors.items()):
        data = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        offsets = [end, end + len(data)]
        head[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        parts.append(data)
        end += len(data)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    write_atomically(path, len(text).to_bytes(8, "little") + text + b"".join(parts))
