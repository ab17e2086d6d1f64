"""Whole runs in a test's process: their options, and what they leave."""

import json

import torch

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.options import build


def config(digits, tmp_path, **changes):
    values = {
        "data.train": digits / "train.beton",
        "data.val": digits / "val.beton",
        "data.num_workers": 1,
        "data.flip": 0,
        "data.min_crop_area": 0.5,
        "model.arch": "toy_model:Small",
        "resolution.min_res": 32,
        "resolution.max_res": 40,
        "resolution.start_ramp": 0,
        "resolution.end_ramp": 1,
        "validation.resolution": 40,
        "lr.lr": 0.01,
        "lr.base_batch": 16,
        "lr.peak_epoch": 1,
        "training.epochs": 2,
        "training.batch_size": 16,
        "dist.device": "cpu",
        "dist.cpu_threads": 1,
        "logging.folder": tmp_path / "runs",
        "logging.name": "run",
    }
    return build(TrainConfig, {k: str(v) for k, v in (values | changes).items()})


def weights(tmp_path, name="run", epoch=2):
    file = tmp_path / "runs" / name / "checkpoints" / f"epoch_{epoch:04d}.pt"
    return torch.load(file, weights_only=True)["model"]


def log(tmp_path, name="run"):
    return [json.loads(line) for line in (tmp_path / "runs" / name / "log.jsonl").read_text().splitlines()]
