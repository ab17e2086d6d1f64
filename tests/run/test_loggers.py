"""TensorBoard and Weights & Biases: what is read back equals the log, also after a resume; off and missing cases."""

from __future__ import annotations

import json
import struct
from importlib.metadata import PackageNotFoundError

import pytest
from whole_runs import config, log

from ffcv_imagenet.experiment import train
from ffcv_imagenet.run import loggers
from ffcv_imagenet.run.folder import RunFolder
from ffcv_imagenet.run.loggers import TensorBoardLogger, WandbLogger


def lines(*epochs):
    return [{"epoch": e, "top_1": e / 8, "train_loss": 2.5 - e, "skipped": 0, "note": "text"} for e in epochs]


def read_events(folder) -> dict[str, list[tuple[int, float]]]:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = event_accumulator.EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_events_equal_the_log_after_interruptions(tmp_path):
    pytest.importorskip("tensorboard")
    first = RunFolder(tmp_path, [TensorBoardLogger(tmp_path / "tensorboard")])
    first.write_log(lines(1))
    first.write_log(lines(1, 2, 3))
    first.write_status("interrupted")
    again = RunFolder(tmp_path, [TensorBoardLogger(tmp_path / "tensorboard")])  # from the checkpoint after epoch 2
    again.write_log([*lines(1, 2), {"epoch": 3, "top_1": 0.9}])
    again.write_status("finished")
    expected = {
        "top_1": [(1, 0.125), (2, 0.25), (3, pytest.approx(0.9))],
        "train_loss": [(1, 1.5), (2, 0.5)],
        "skipped": [(1, 0), (2, 0)],
    }
    assert read_events(tmp_path / "tensorboard") == expected


def test_a_training_writes_its_log_as_events(digits, tmp_path):
    pytest.importorskip("tensorboard")
    train(config(digits, tmp_path, **{"training.epochs": 1, "lr.peak_epoch": 0, "logging.tensorboard": 1}))
    (line,) = log(tmp_path)
    events = read_events(tmp_path / "runs" / "run" / "tensorboard")
    assert events == {name: [(1, pytest.approx(value, rel=1e-6))] for name, value in line.items() if name != "epoch"}


@pytest.mark.parametrize(("package", "value"), [("tensorboard", 1), ("wandb", "project")])
def test_a_missing_package_is_told_before_anything_starts(digits, tmp_path, monkeypatch, package, value):
    def none_installed(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(loggers, "distribution", none_installed)
    with pytest.raises(ValueError, match=f"^logging.{package} needs the package {package}: pip install {package}$"):
        train(config(digits, tmp_path, **{f"logging.{package}": value}))
    assert not (tmp_path / "runs").exists()


def test_a_logger_that_fails_does_not_end_the_training(tmp_path, capsys):
    class Broken:
        def log(self, lines):
            raise OSError("no space\nleft")

        def close(self, finished):
            raise AssertionError("left out already")

    folder = RunFolder(tmp_path, [Broken()])
    folder.write_log(lines(1))
    folder.write_status("finished")
    assert capsys.readouterr().err == "warning: Broken failed and is left out: no space left\n"
    assert json.loads((tmp_path / "log.jsonl").read_text())["epoch"] == 1


def leveldb_records(content: bytes):
    """The records of a .wandb file: LevelDB's log format, in blocks of 32 KiB, behind a header of 7 bytes."""
    position, record = 7, b""
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def test_wandb_offline_has_the_log_and_one_id_for_all_starts(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    params = {"name": "run", "started": "2026-11-23T17:16:05+00:00", "config": {"loss.name": "maxsup"}}
    for epochs, state in (((1, 2), "interrupted"), ((1, 2, 3), "finished")):
        folder = RunFolder(tmp_path, [WandbLogger(tmp_path, params, "losses")])
        for stop in range(1, len(epochs) + 1):
            folder.write_log(lines(*epochs[:stop]))
        folder.write_status(state)
    wandb.teardown()  # as at the end of a process: its writer ends

    ids, last = set(), {}
    for file in sorted(tmp_path.glob("wandb/offline-run-*/*.wandb")):
        for data in leveldb_records(file.read_bytes()):
            record = Record.FromString(data)
            if record.HasField("run"):
                ids.add(record.run.run_id)
                assert (record.run.project, record.run.display_name) == ("losses", "run")
            if record.HasField("history"):
                items = {i.key or i.nested_key[0]: json.loads(i.value_json) for i in record.history.item}
                last[items["_step"]] = items["top_1"]
    assert len(ids) == 1
    assert last == {1: 0.125, 2: 0.25, 3: 0.375}
