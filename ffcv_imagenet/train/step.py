"""From a batch to its loss: the part of a step that is compiled and distributed."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ffcv_imagenet.augment.mixing import mix_images, swap_neighbours
from ffcv_imagenet.augment.normalize import Normalize
from ffcv_imagenet.distributed import World
from ffcv_imagenet.models import classify_locally, is_frozen
from ffcv_imagenet.train.compile_modes import COMPILE_MODES, CUDA_GRAPH_MODES
from ffcv_imagenet.train.loss_module import LossModule
from ffcv_imagenet.train.precision import autocast

#: DDP's argument that gives rank 0's buffers to the other ranks before each step; torch 2.14 has renamed it.
_SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel.__init__).parameters
)


class TrainingStep(nn.Module):
    """A batch's mean loss: normalisation, mixing, ``model`` under autocast, ``loss`` (in float32).

    Args:
        model: on ``device``; one that :func:`~ffcv_imagenet.models.classify_locally` takes where the loss reads that.
        loss: on ``device``.
        normalize: from uint8 images to the model's input; on ``device``.
        precision: bf16, fp16 or fp32.
        device: where the batches are.
    """

    def __init__(
        self, model: nn.Module, loss: LossModule, normalize: Normalize, *, precision: str, device: torch.device
    ):
        super().__init__()
        self.model, self.loss, self.normalize = model, loss, normalize
        self.precision, self.device = precision, device

    def train(self, mode: bool = True) -> TrainingStep:
        """Put model and loss into training mode, but for the frozen parts of the model."""
        super().train(mode)
        for module in self.model.modules():
            if mode and is_frozen(module):
                module.eval()
        return self

    def forward(self, images: Tensor, labels: Tensor, mixture: Tensor | None = None) -> Tensor:
        """A scalar from a batch.

        Args:
            images: [B, 3, H, W], uint8 or normalised already.
            labels: [B] int64.
            mixture: [6], see :class:`~ffcv_imagenet.augment.mixing.Mixture`; None: nothing is mixed.
        """
        images = self.normalize(images)
        if mixture is not None:
            images = mix_images(images, mixture)
        with autocast(self.precision, self.device):
            if mixture is not None:
                return self.loss.of_mixture(self.model(images), labels, swap_neighbours(labels), mixture[0])
            if self.loss.loss.reads_local_classes:
                logits, local_classes = classify_locally(self.model, images)
                return self.loss(logits, labels, local_classes)
            return self.loss(self.model(images), labels)


class EvaluationStep(nn.Module):
    """A batch's logits: normalisation, ``model`` under autocast.

    Args:
        model: on ``device``.
        normalize: from uint8 images to the model's input; on ``device``.
        precision: bf16, fp16 or fp32.
        device: where the batches are.
    """

    def __init__(self, model: nn.Module, normalize: Normalize, *, precision: str, device: torch.device):
        super().__init__()
        self.model, self.normalize = model, normalize
        self.precision, self.device = precision, device

    def forward(self, images: Tensor) -> Tensor:
        """``images [B, 3, H, W]`` (uint8, or normalised already) to ``[B, K]``."""
        images = self.normalize(images)
        with autocast(self.precision, self.device):
            return self.model(images)


def distribute(step: TrainingStep, world: World, accumulation: int) -> nn.Module:
    """The same step in DDP: gradients are averaged over the ranks during the backward pass.

    Buffers stay each rank's own. Of a model these are the statistics of normalisation layers, which a training step
    writes and does not read: what counts are rank 0's, which :func:`~ffcv_imagenet.train.evaluation.evaluate` gives to
    all ranks, and which checkpoints hold. (Broadcast before every step, they would be the same.) Of a loss they are
    what a rank has seen, which such a broadcast would destroy on all but rank 0.
    """
    if world.size == 1:
        return step
    return DistributedDataParallel(
        step,
        device_ids=[world.device] if world.device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **{_SYNC_BUFFERS: False},  # type: ignore[arg-type]
        # With a static graph, DDP fails at the first gradients that were accumulated under no_sync (torch 2.15).
        static_graph=accumulation == 1,
    )


class DistributedStep:
    """A :class:`TrainingStep` as it runs: distributed over the ranks, and compiled.

    ``module`` is the step itself, whose parameters and buffers are those of the model and the loss.

    Args:
        module: on the device of ``world``.
        world: this process among all.
        accumulation: micro-batches per step of the optimizer.
        compile: off or one of :data:`COMPILE_MODES`.
        shapes: see :func:`compile_module`.
    """

    def __init__(self, module: TrainingStep, world: World, *, accumulation: int, compile: str, shapes: int):
        self.module = module
        self._distributed = distribute(module, world, accumulation)
        self._compiled = compile_module(self._distributed, compile, shapes)

    def __call__(self, images: Tensor, labels: Tensor, mixture: Tensor | None = None) -> Tensor:
        """The mean loss of a micro-batch; see :meth:`TrainingStep.forward`."""
        return self._compiled(images, labels) if mixture is None else self._compiled(images, labels, mixture)

    def train(self) -> None:
        """Put model and loss into training mode."""
        self._distributed.train()

    def gradient_sync(self, last: bool) -> contextlib.AbstractContextManager:
        """Where a micro-batch's gradients are computed: only with the ``last`` of a step are they averaged."""
        if last or not isinstance(self._distributed, DistributedDataParallel):
            return contextlib.nullcontext()
        return self._distributed.no_sync()


def choose_compile(name: str, device: torch.device, *, sync_bn: bool = False, processes: int = 1) -> str:
    """Resolve ``auto``: compile on GPUs, not on CPUs, where it takes longer than a short training.

    Nor with synchronised batch normalisation, which waits for the device in every layer: the graph would end there, and
    there would be hundreds of them.

    Raises:
        ValueError: CUDA graphs with several processes. torch records graphs that lack what DDP sends
            (github.com/pytorch/pytorch/issues/140395, for max-autotune; reduce-overhead has not been tried).
    """
    if name in CUDA_GRAPH_MODES and device.type == "cuda" and processes > 1:
        raise ValueError(
            f"training.compile: got {name}, allowed on several GPUs is auto | off | default | aot_eager, such as "
            f"--training.compile=default"
        )
    if name == "auto":
        return "default" if device.type == "cuda" and not sync_bn else "off"
    return name


def compile_module(module: nn.Module, mode: str, shapes: int) -> Callable[..., Any]:
    """``module`` compiled anew for every shape of its inputs; ``module`` itself for ``mode`` off.

    In the :data:`CUDA_GRAPH_MODES` an output is valid until the next call of anything that replays graphs.

    Args:
        module: its parameters and buffers stay where they are.
        mode: off or one of :data:`COMPILE_MODES`.
        shapes: how many shapes there will be; beyond torch's limit it would silently not be compiled.
    """
    if mode == "off":
        return module
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, 2 * shapes + 8)
    compiled = torch.compile(module, dynamic=False, **COMPILE_MODES[mode])  # type: ignore[call-overload]
    if mode not in CUDA_GRAPH_MODES:
        return compiled

    def replay(*inputs: Tensor) -> Any:
        # Without it a call whose predecessor's output is still held would be recorded as that one's continuation, and
        # an evaluation of a hundred batches as a hundred graphs.
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(*inputs)

    return replay
