"""Run folders as libffcv/ffcv-imagenet's train_imagenet.py writes them, read like ours."""

from __future__ import annotations

import dataclasses
import json
import re
import uuid
from pathlib import Path

import pytest
from run_folders import make_run, read_runs

from ffcv_imagenet.report.comparison import compare
from ffcv_imagenet.report.groups import group_runs
from ffcv_imagenet.report.page import render_page
from ffcv_imagenet.report.runs import LIBFFCV, load_runs
from ffcv_imagenet.report.table import TableRow, table
from ffcv_imagenet.report.text import format_table

#: What that script writes with rn50_configs/rn50_16_epochs.yaml: every option, in the order of its sections.
PARAMS = {
    "model.arch": "resnet50",
    "model.pretrained": 0,
    "resolution.min_res": 160,
    "resolution.max_res": 192,
    "resolution.end_ramp": 13,
    "resolution.start_ramp": 11,
    "data.train_dataset": "/data/train_500_0.50_90.ffcv",
    "data.val_dataset": "/data/val_500_0.50_90.ffcv",
    "data.num_workers": 12,
    "data.in_memory": 1,
    "lr.step_ratio": 0.1,
    "lr.step_length": 30,
    "lr.lr_schedule_type": "cyclic",
    "lr.lr": 0.5,
    "lr.lr_peak_epoch": 2,
    "logging.folder": "/logs",
    "logging.log_level": 1,
    "validation.batch_size": 512,
    "validation.resolution": 256,
    "validation.lr_tta": 1,
    "training.eval_only": 0,
    "training.batch_size": 512,
    "training.optimizer": "sgd",
    "training.momentum": 0.9,
    "training.weight_decay": 5e-05,
    "training.epochs": 3,
    "training.label_smoothing": 0.1,
    "training.distributed": 1,
    "training.use_blurpool": 1,
    "dist.world_size": 8,
    "dist.address": "localhost",
    "dist.port": "12355",
}


def write_run(root: Path, top_1=(0.25, 0.5, 0.75), final=True, log_level=1, number=0, **changes) -> Path:
    """A folder with the lines of its ``log`` method: after every epoch, and once more at the end."""
    folder = root / str(uuid.UUID(int=number))
    folder.mkdir(parents=True)
    params = PARAMS | {"logging.log_level": log_level} | {k.replace("__", "."): v for k, v in changes.items()}
    (folder / "params.json").write_text(json.dumps(params))
    with (folder / "log").open("a+") as log:
        for epoch, value in enumerate(top_1):
            last = {"timestamp": 1.7e9 + 60 * epoch + 60, "relative_time": 60.0 * epoch + 60, "current_lr": 0.25}
            scores = {"top_1": value, "top_5": 0.9, "val_time": 4.5}
            if log_level:
                log.write(json.dumps({**last, **scores, "train_loss": None, "epoch": epoch}) + "\n")
        if final:
            again = {**last, "relative_time": last["relative_time"] + 6, **scores, "epoch": epoch}
            log.write(json.dumps(again) + "\n")
    return folder


def test_a_run_is_read(tmp_path):
    folder = write_run(tmp_path)
    (run,) = read_runs(tmp_path)
    assert (run.name, run.architecture, run.recipe, run.loss) == (folder.name, "resnet50", LIBFFCV, "label_smoothing")
    assert (run.epochs, run.seed, run.finished) == (3, None, True)
    assert [(e.epoch, e.top_1, e.total_seconds) for e in run.log] == [(1, 0.25, 60), (2, 0.5, 120), (3, 0.75, 186)]
    (row,) = table([run])
    assert (row.top_1_percent, row.runs, row.seeds) == (pytest.approx(75), 1, 1)
    assert row.minutes == pytest.approx(3.1)
    assert row.images_per_second is None


@pytest.mark.parametrize(("smoothing", "loss"), [(0.1, "label_smoothing"), (0, "baseline"), (0.0, "baseline")])
def test_the_loss_follows_from_the_smoothing(tmp_path, smoothing, loss):
    write_run(tmp_path, training__label_smoothing=smoothing)
    assert read_runs(tmp_path)[0].loss == loss


@pytest.mark.parametrize(
    ("changes", "progress"),
    [
        ({"top_1": (0.25, 0.5), "final": False}, "at 2/3"),
        ({"top_1": (), "final": False}, "at 0/3"),
        ({"log_level": 0}, "at 3/3"),
    ],
)
def test_runs_are_finished_when_the_last_epoch_is_logged(tmp_path, changes, progress):
    write_run(tmp_path, **changes)
    (run,) = read_runs(tmp_path)
    assert run.progress == progress
    assert run.finished == (progress == "at 3/3")


def test_an_evaluation_alone_is_no_training(tmp_path):
    folder = write_run(tmp_path, top_1=(), final=False, training__eval_only=1)
    (folder / "log").write_text('{"timestamp": 1.0, "relative_time": 1.0, "top_1": 0.7, "top_5": 0.9, "val_time": 3}\n')
    assert read_runs(tmp_path)[0].progress == "at 0/3"


def test_each_run_counts_as_a_seed_of_its_own_and_losses_are_tested_unpaired(tmp_path):
    for number, (smoothing, value) in enumerate([(0, 0.70), (0, 0.71), (0.1, 0.73), (0.1, 0.75)]):
        write_run(
            tmp_path, (0.1, 0.2, value), number=number, training__label_smoothing=smoothing, dist__port=str(number)
        )
    rows = table(read_runs(tmp_path))
    assert [row.seeds for row in rows] == [2, 2]
    assert "differs in" not in format_table(rows)
    assert (rows[1].loss, rows[1].test) == ("label_smoothing", "Welch's t-test")
    assert rows[1].difference_points == pytest.approx(3.5)


@pytest.mark.parametrize("changes", [{"data__train_dataset": "/data/train_400.ffcv"}, {"lr__lr": 1.0}])
def test_runs_with_other_options_are_kept_apart(tmp_path, changes):
    write_run(tmp_path, number=0)
    write_run(tmp_path, number=1, **changes)
    assert [row.runs for row in table(read_runs(tmp_path))] == [1, 1]


def test_they_are_never_averaged_or_compared_with_ours(tmp_path):
    write_run(tmp_path, training__label_smoothing=0.1)
    make_run(tmp_path, "ours", loss="label_smoothing")
    make_run(tmp_path, "baseline", loss="baseline")
    groups = group_runs(read_runs(tmp_path))
    assert [(g.recipe, len(g.runs)) for g in groups] == [(LIBFFCV, 1), ("rn50_16_epochs", 1), ("rn50_16_epochs", 1)]
    theirs = compare(groups)[0]
    assert theirs.why_no_difference == "no finished run of baseline with the same options"
    assert str(uuid.UUID(int=0)) in render_page(read_runs(tmp_path))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("params.json", json.dumps({"model.arch": "resnet50"}), "'training.label_smoothing' is missing"),
        ("log", '{"epoch": 0, "top_1": 0.5}\n', "log, line 1: 'top_5' is missing"),
        ("log", '{"epoch"\n', "log, line 1 is not valid JSON"),
    ],
)
def test_broken_files_are_named(tmp_path, file, content, message):
    folder = write_run(tmp_path)
    (folder / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_runs([tmp_path])


def test_its_epochs_may_be_floats(tmp_path):
    folder = write_run(tmp_path)
    log = folder / "log"
    log.write_text(log.read_text().replace('"epoch": 0', '"epoch": 0.0'))
    assert [e.epoch for e in read_runs(tmp_path)[0].log] == [1, 2, 3]


def test_no_table_has_a_column_of_validation_losses(tmp_path):
    """Ours and libffcv's are two quantities."""
    write_run(tmp_path)
    make_run(tmp_path, "ours", loss="label_smoothing")
    runs = read_runs(tmp_path)
    columns = {field.name for field in dataclasses.fields(TableRow)}
    assert not {column for column in columns if column.startswith("val") or column.endswith("loss")} - {"loss"}
    head = re.findall(r'<th scope="col">([^<]*)', render_page(runs))
    assert "loss" in head
    assert not [name for name in head if "val" in name]
