"""Number formats of training: bf16 or fp16 under autocast, or fp32."""

from __future__ import annotations

import torch

_AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(name: str, device: torch.device) -> str:
    """Resolve ``auto``: bf16 on GPUs that compute in it, fp16 on other GPUs, fp32 on CPUs.

    Raises:
        ValueError: bf16 on a GPU that does not have it.
    """
    on_gpu = device.type == "cuda"
    has_bf16 = not on_gpu or torch.cuda.get_device_capability(device) >= (8, 0)
    if name == "auto":
        return ("bf16" if has_bf16 else "fp16") if on_gpu else "fp32"
    if name == "bf16" and not has_bf16:
        raise ValueError("training.precision: got bf16, allowed on this GPU is fp16 | fp32")
    return name


def input_dtype(precision: str) -> torch.dtype:
    """The type of a model's input: what autocast's first layer would make of it."""
    return _AUTOCAST_DTYPES.get(precision, torch.float32)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The autocast context of a precision; one that does nothing for fp32."""
    dtype = _AUTOCAST_DTYPES.get(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
