"""Compare the losses: read run folders, print a table of top-1 per loss, save it, plot it, make a page of it.

    python -m ffcv_imagenet.report runs/ [more folders] [--html FILE] [--csv FILE] [--markdown FILE] [--plot FILE.png]

A run folder holds ``params.json``, ``log.jsonl`` and ``status.json``, as the trainer writes them, or ``params.json``
and ``log`` of libffcv/ffcv-imagenet. Only finished runs enter the figures; the others are counted and named beside
them. Runs are averaged only when they differ in nothing but the seed and options that say where and how fast a run
executes (:data:`~ffcv_imagenet.config.RUNNING`, :data:`~ffcv_imagenet.config.KEEPING`).
"""

from ffcv_imagenet.report.command import main
from ffcv_imagenet.report.comparison import compare
from ffcv_imagenet.report.groups import LOSS_ORDER, group_runs
from ffcv_imagenet.report.page import render_page
from ffcv_imagenet.report.runs import load_runs
from ffcv_imagenet.report.text import format_table, table

__all__ = ["LOSS_ORDER", "compare", "format_table", "group_runs", "load_runs", "main", "render_page", "table"]
