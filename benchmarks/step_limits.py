"""What a training step cannot be faster than: operations and bytes per image, counted from the model.

The count is of forward and backward under bf16. Each tensor of activations is read and written where that must be if
nothing is fused into the convolutions, but all that lies between two of them is one pass: what a compiler can do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from steps import CLASSES
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ffcv_imagenet.models import BlurPoolConv2d, build_model

#: Bytes of an element of the activations.
ELEMENT = 2


@dataclass(frozen=True)
class Cost:
    """Of one image: FLOP, a multiply-add as two, and bytes by what moves them."""

    flops: float
    convolutions: float
    normalisations: float
    blurs: float
    additions: float
    others: float

    @property
    def bytes(self) -> float:
        return self.convolutions + self.normalisations + self.blurs + self.additions + self.others

    def limit(self, flops_rate: float, bytes_rate: float) -> tuple[float, str]:
        """Images/s of a card with these rates per second, and what limits them: ``operations`` or ``bytes``."""
        return min((flops_rate / self.flops, "operations"), (bytes_rate / self.bytes, "bytes"))


@functools.cache
def cost_of_image(arch: str, side: int) -> Cost:
    """Count on the meta device, without computing; weights, which a batch shares, are not in it.

    With x and y the bytes of a layer's input and output:

    - a convolution reads x, writes y; backward reads y's gradient twice (for x's and for the weights'), x again, and
      writes x's gradient: 3 x + 3 y, and 2 x less where the image needs no gradient;
    - batch normalisation with its ReLU reads x for the statistics, then reads it and writes y; backward reads x and y's
      gradient for the sums, and once more to write x's gradient: 5 x + 3 y;
    - a blur reads x and writes y, backward the other way round: 2 x + 2 y;
    - a residual's sum, in one pass with the normalisation before it, adds a read of the other branch; backward adds a
      read of what the ReLU let through, and a write of the gradient that both branches get: 3 y;
    - others are pooling, as a blur, and the images, a byte and then two for each value.
    """
    bytes_of = dict.fromkeys(("convolutions", "normalisations", "blurs", "additions"), 0.0)
    bytes_of["others"] = 3.0 * side**2 * (1 + ELEMENT)
    with torch.device("meta"):
        model = build_model(arch, CLASSES, blurpool=True)
        for module in model.modules():
            module.register_forward_hook(_counting(bytes_of))
        counter = FlopCounterMode(display=False)
        with counter:
            model(torch.empty(2, 3, side, side)).sum().backward()
    return Cost(counter.get_total_flops() / 2, **bytes_of)


def _counting(bytes_of: dict[str, float]) -> Callable[..., None]:
    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        read, written = ELEMENT * inputs[0][0].numel(), ELEMENT * output[0].numel()
        if isinstance(module, BlurPoolConv2d):
            # The convolution inside it, where it is called as a module, has been counted by its own hook.
            stride = 1 if module.reads_all else module.conv.stride[0]
            blurred = read / stride**2
            bytes_of["blurs"] += 2 * (read + blurred)
            if not module.reads_all:
                bytes_of["convolutions"] += 3 * (blurred + written)
        elif isinstance(module, nn.Conv2d):
            bytes_of["convolutions"] += 3 * (read + written) - (2 * read if inputs[0].shape[1] == 3 else 0)
        elif isinstance(module, nn.BatchNorm2d):
            bytes_of["normalisations"] += 5 * read + 3 * written
        elif type(module).__name__ in ("BasicBlock", "Bottleneck"):
            bytes_of["additions"] += 3 * written
        elif isinstance(module, nn.MaxPool2d | nn.AdaptiveAvgPool2d):
            bytes_of["others"] += 2 * (read + written)

    return count
