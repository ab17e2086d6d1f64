"""All that the project uses of FFCV, imported without most of the CPU time that ``import ffcv`` takes.

FFCV keeps the names of its two image modes in a numba typed dict, which is filled while :mod:`ffcv.fields.rgb_image` is
imported; for this numba compiles the dict's methods anew in every process. Nothing compiled reads that dict, only
Python code does, so here it is a plain dict. And torch keeps its threads, of which FFCV leaves one. These are the only
differences from FFCV as it imports itself, and there are none at all if something else imported FFCV earlier.

So import FFCV's names from here, and only from here.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import numba.typed
import torch

import ffcv_imagenet.compiled  # noqa: F401  (chooses where numba's threads come from, before FFCV starts them)

#: The process whose threads numba's are: they start while FFCV is imported, and a fork does not take them along.
THREADS_OF = os.getpid()


@contextlib.contextmanager
def _typed_dicts_are_plain() -> Iterator[None]:
    """A module that imports ``numba.typed.Dict`` meanwhile gets :class:`dict`; FFCV's get numba's back at the end.

    numba itself looks the name up only when it compiles, which no module of FFCV makes it do while it is imported.
    """
    before = set(sys.modules)
    original = numba.typed.Dict
    numba.typed.Dict = dict
    try:
        yield
    finally:
        numba.typed.Dict = original
        for name in set(sys.modules) - before:
            module = sys.modules[name]
            if name.split(".")[0] == "ffcv" and vars(module).get("Dict") is dict:
                module.Dict = original  # type: ignore[attr-defined]


@contextlib.contextmanager
def torch_threads_kept() -> Iterator[None]:
    """FFCV gives torch as many threads as its loader, one while it is imported; a training decides about torch's."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


with _typed_dicts_are_plain(), torch_threads_kept():
    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import SimpleRGBImageDecoder
    from ffcv.loader import Loader
    from ffcv.loader.epoch_iterator import EpochIterator
    from ffcv.memory_managers import OSCacheManager
    from ffcv.memory_managers.os_cache import OSCacheContext
    from ffcv.pipeline import Compiler, PipelineSpec
    from ffcv.pipeline.allocation_query import AllocationQuery
    from ffcv.pipeline.graph import Graph
    from ffcv.pipeline.state import State
    from ffcv.transforms import ToDevice, ToTensor, ToTorchImage
    from ffcv.traversal_order.base import TraversalOrder

__all__ = [
    "THREADS_OF",
    "AllocationQuery",
    "Compiler",
    "EpochIterator",
    "Graph",
    "IntDecoder",
    "IntField",
    "Loader",
    "OSCacheContext",
    "OSCacheManager",
    "PipelineSpec",
    "RGBImageField",
    "SimpleRGBImageDecoder",
    "State",
    "ToDevice",
    "ToTensor",
    "ToTorchImage",
    "TraversalOrder",
    "torch_threads_kept",
]
