"""Compare the losses: read run folders, print a table of top-1 per loss, save it, plot it, make a page of it.

    python -m ffcv_imagenet.report runs/ [more folders] [--html FILE] [--csv FILE] [--markdown FILE] [--plot FILE.png]
    python -m ffcv_imagenet.report runs/ --plan 0.3
    python -m ffcv_imagenet.report --plan 0.3 --sd 0.15

A run folder holds ``params.json``, ``log.jsonl`` and ``status.json``, as the trainer writes them, or ``params.json``
and ``log`` of libffcv/ffcv-imagenet. Only finished runs enter the figures; the others are counted and named next to
them. Runs are averaged only when they differ in nothing but the seed and options that say where and how fast a run
executes (:data:`~ffcv_imagenet.config.RUNNING`, :data:`~ffcv_imagenet.config.KEEPING`). A run folder that cannot be
understood is named and left out.
"""

from ffcv_imagenet.report.command import main

__all__ = ["main"]
