"""Whether two nests of tensors are the same, bit for bit."""

from collections.abc import Mapping

import torch


def same(a, b):
    """Whether mappings and sequences of the same lengths and keys hold equal tensors; empty ones are no evidence."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, Mapping):
        return len(a) > 0 and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return len(a) == len(b) > 0 and all(map(same, a, b))
