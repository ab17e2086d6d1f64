"""Run folders built by hand, as the trainer writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ffcv_imagenet.report.runs import Run, load_runs

EPOCHS = 4


def epoch_line(
    epoch: int, top_1: float | None, top_k: float | None = 0.9, speed: float | None = 1000.0, k: int = 5
) -> str:
    line = {
        "epoch": epoch,
        "train_loss": 1.0,
        "top_1": top_1,
        "top_k": top_k,
        "k": k,
        "val_loss": None,
        "lr": 0.1,
        "resolution": 160,
        "images_per_second": speed,
        "seconds": 60.0,
        "total_seconds": 60.0 * epoch,
        "wait_share": 0.0,
    }
    return json.dumps(line) + "\n"


def make_run(
    root: Path,
    name: str,
    loss: str = "maxsup",
    seed: int = 0,
    top_1: tuple[float | None, ...] = (0.1, 0.2, 0.4, 0.3),
    state: str | None = "finished",
    error: str | None = None,
    arch: str = "resnet50",
    recipe: str = "rn50_16_epochs",
    world_size: int = 1,
    train_data: str = "11111111aa",
    hardware: str = "H200",
    log: str | None = None,
    **options: Any,
) -> Path:
    """A run folder; ``options`` are written section__name=value."""
    folder = root / name
    folder.mkdir(parents=True)
    config = {
        "data.train": "/data/train.beton",
        "data.num_workers": 8,
        "model.arch": arch,
        "loss.name": loss,
        "loss.alpha_start": 0.1,
        "training.epochs": EPOCHS,
        "training.seed": seed,
        "lr.lr": 1.7,
        "logging.name": name,
    }
    config |= {key.replace("__", "."): value for key, value in options.items()}
    params = {
        "name": name,
        "recipe": recipe,
        "config": config,
        "hardware": {"gpu": hardware},
        "train_data": train_data,
        "val_data": "22222222aa",
        "world_size": world_size,
        "precision": "bf16",
    }
    (folder / "params.json").write_text(json.dumps(params))
    lines = [epoch_line(epoch, value) for epoch, value in enumerate(top_1, start=1)]
    (folder / "log.jsonl").write_text("".join(lines) if log is None else log)
    if state is not None:
        (folder / "status.json").write_text(json.dumps({"state": state, "error": error}))
    return folder


def read_runs(*folders: Path) -> list[Run]:
    """The runs in some folders, of which none is damaged."""
    runs, left_out = load_runs(folders)
    assert left_out == []
    return runs
