"""Decoding on a GPU: compressed bytes go there, normalised batches are made there.

One thread gathers the bytes of batch n + 1 while the GPU decodes batch n, on a stream of its own, and the training
uses batch n - 1. What a batch needs goes over in one copy; four kernels do the rest. The pixels are those of
:mod:`~ffcv_imagenet.data.read.decode_cpu`, which also decodes the samples that the kernels do not take (raw pixels,
progressive JPEGs, JPEGs without entry points) and decides what is damaged.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ffcv_imagenet.augment.normalize import Normalize
from ffcv_imagenet.data.format.index import EntryIndex
from ffcv_imagenet.data.read.beton_file import Storage
from ffcv_imagenet.data.read.decode_cpu import CropDecoder
from ffcv_imagenet.data.read.gather import ALIGNMENT, Gathered, Gatherer
from ffcv_imagenet.data.read.kernels import KERNELS, THREADS, Event, Kernels, is_installed

#: Minimum growth factor of buffers, so that reallocations are rare.
GROWTH = 1.5

#: Blocks that share an image's work in the two resizing kernels.
BLOCKS_PER_IMAGE = 16

#: With so many cores per GPU ``auto`` has them decode. A core decodes some 4,000 crops of 160 px per second
#: (benchmarks/RESULTS.md); how many a GPU consumes is an estimate: not measured.
CORES_ENOUGH = 8

_MOST_BLOCKS = 65535  # of a grid's second dimension


def _images_offset(count: int) -> int:
    """Where the images' descriptions lie in the staging buffer: after ``count`` labels."""
    return math.ceil(8 * count / ALIGNMENT) * ALIGNMENT


def output_levels(dtype: torch.dtype, normalize: Normalize) -> Tensor:
    """What the kernels write for each value of red, green and blue: ``[3, 256] int32``, the elements' bits.

    Args:
        dtype: of the batches: uint8 for the values themselves, a floating-point type for normalised ones.
        normalize: makes the latter.
    """
    values = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256)
    elements = (values if dtype == torch.uint8 else normalize.cpu()(values).to(dtype)).reshape(3, 256)
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[dtype.itemsize]
    return elements.contiguous().view(bits).to(torch.int32)


def choose_decoder(name: str, path: Path, device: torch.device, cores: int) -> str:
    """Resolve ``auto`` to cpu or gpu.

    Args:
        name: cpu, gpu or auto.
        path: the .beton file.
        device: where the training runs.
        cores: usable ones of this process.
    """
    if name != "auto":
        return name
    can = device.type == "cuda" and EntryIndex.path(path).is_file() and is_installed()
    return "gpu" if can and cores < CORES_ENOUGH else "cpu"


class OutputBuffers(NamedTuple):
    """Memory of a batch: ``images [B, S, S, 3]`` and ``labels [B] int64`` on the device, and on the host
    ``status [B] int32``, not 0 for images whose data look damaged."""

    images: Tensor
    labels: Tensor
    status: Tensor


class Staging:
    """Memory on the host from which a batch is copied to the device."""

    def __init__(self, kernels: Kernels):
        self.buffer = kernels.host_buffer(1 << 20)
        self.copied: Event | None = None


class BatchDecoder:
    """Gathers batches and starts their decoding; used by one thread.

    Args:
        gatherer: of the .beton file.
        decoder: the CPU's, for crop boxes, the resizing filter and the samples that it has to decode.
        labels: of all samples, int64.
        kernels: where to decode.
        batch_size: the largest batch.
        dtype: of the output, see :func:`output_levels`.
        normalize: likewise.
    """

    def __init__(
        self,
        gatherer: Gatherer,
        decoder: CropDecoder,
        labels: np.ndarray,
        kernels: Kernels,
        batch_size: int,
        dtype: torch.dtype,
        normalize: Normalize,
    ):
        self.gatherer, self.decoder, self.labels = gatherer, decoder, labels
        self.kernels, self.dtype = kernels, dtype
        self.levels = output_levels(dtype, normalize).to(kernels.device)
        self._staging = [Staging(kernels) for _ in range(2)]
        self._turn = 0
        self._status = torch.zeros(batch_size, dtype=torch.int32, device=kernels.device)
        self._on_device = self._workspace = torch.empty(0, dtype=torch.uint8, device=kernels.device)

    def compile(self, storage: Storage) -> None:
        """Have numba compile here and now what :meth:`submit` calls."""
        none = np.zeros(0, np.int64)
        pixels, codes = np.zeros((0, 1, 1, 3), np.uint8), np.zeros((0, 1), np.int32)
        self.decoder.decode(none, self.decoder.boxes(none), pixels, codes, storage)

    def submit(
        self, samples: np.ndarray, on_cpu: np.ndarray, codes: np.ndarray, storage: Storage, output: OutputBuffers
    ) -> Event | None:
        """Start decoding a batch; the event follows its last step. None, and nothing started, for damaged samples.

        Args:
            samples: [B] indices in the file.
            on_cpu: [B] bool, samples that the CPU decodes in any case; set for all that it decodes.
            codes: [B] int32, set to the error codes of samples that the CPU cannot decode, 0 for others.
            storage: of the file, for the CPU's decoder.
            output: where the batch goes.
        """
        codes[:] = 0
        staging, self._turn = self._staging[self._turn], 1 - self._turn
        if staging.copied is not None:
            staging.copied.synchronize()
        gathered = self.gather(samples, on_cpu, output.images.shape[1], staging)
        if gathered.num_on_cpu:
            pixels = staging.buffer.numpy()[gathered.pixels : gathered.used]
            pixels = pixels.reshape(gathered.num_on_cpu, *output.images.shape[1:])
            codes_on_cpu = np.zeros((gathered.num_on_cpu, 1), np.int32)
            boxes = self.decoder.boxes(samples[on_cpu])
            self.decoder.decode(samples[on_cpu], boxes, pixels, codes_on_cpu, storage)
            codes[on_cpu] = codes_on_cpu[:, 0]
            if codes.any():
                return None
        with self.kernels.stream():
            self.copy_to_device(staging, gathered.used)
            self.start_kernels(gathered, len(samples), output)
            return self.kernels.record()

    def gather(self, samples: np.ndarray, on_cpu: np.ndarray, resolution: int, staging: Staging) -> Gathered:
        """Fill the staging buffer: labels, then what :class:`Gatherer` puts there."""
        boxes, begin = self.decoder.boxes(samples), _images_offset(len(samples))
        while True:
            gathered = self.gatherer.gather(
                samples, boxes, on_cpu, resolution, self.decoder.resize, staging.buffer.numpy(), begin
            )
            if isinstance(gathered, Gathered):
                break
            staging.buffer = self.kernels.host_buffer(int(GROWTH * gathered))
        staging.buffer.numpy()[: 8 * len(samples)] = self.labels[samples].view(np.uint8)
        return gathered

    def copy_to_device(self, staging: Staging, size: int) -> None:
        """Queue the copy of the first bytes of a staging buffer on the current stream."""
        self._on_device = self._grown(self._on_device, size)
        self._on_device[:size].copy_(staging.buffer[:size], non_blocking=True)
        staging.copied = self.kernels.record()

    def start_kernels(self, gathered: Gathered, count: int, output: OutputBuffers) -> None:
        """Queue the kernels after it, for a batch of ``count`` images."""
        self._workspace = self._grown(self._workspace, gathered.workspace)
        status, images = self._status[:count], output.images
        status.zero_()
        output.labels[:count].copy_(self._on_device[: 8 * count].view(torch.int64))
        arguments = (
            self._on_device.data_ptr(), _images_offset(count), self._workspace.data_ptr(), status.data_ptr(),
            self.levels.data_ptr(), images.data_ptr(), images.element_size(), images.shape[2], images.shape[1],
        )  # fmt: skip
        blocks = (4, math.ceil(gathered.max_items / THREADS), BLOCKS_PER_IMAGE, BLOCKS_PER_IMAGE)
        for name, number in zip(KERNELS, blocks, strict=True):
            if number:
                self.kernels.launch(name, (count, min(number, _MOST_BLOCKS)), arguments)
        output.status[:count].copy_(status, non_blocking=True)

    def _grown(self, buffer: Tensor, size: int) -> Tensor:
        if buffer.numel() >= size:
            return buffer
        return torch.empty(int(GROWTH * size), dtype=torch.uint8, device=self.kernels.device)
