"""What happens to a run: signals, losses that are not finite, hostile files, a second process."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from equality import same
from hostile import Hostile
from whole_runs import config, log, weights

from ffcv_imagenet.data.format.beton import read_samples
from ffcv_imagenet.experiment import evaluate_only, train
from ffcv_imagenet.losses.baseline import Baseline
from ffcv_imagenet.models import build_model
from ffcv_imagenet.run.lock import hold, is_active
from ffcv_imagenet.run.log import best_epoch
from ffcv_imagenet.train.interruption import Interrupted, StopSignals
from ffcv_imagenet.train.trainer import Trainer

TIMES = ("images_per_second", "seconds", "total_seconds", "wait_share")


def without_times(lines):
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def status(tmp_path, name="run"):
    return json.loads((tmp_path / "runs" / name / "status.json").read_text())


def checkpoints(tmp_path, name="run"):
    return sorted(file.name for file in (tmp_path / "runs" / name / "checkpoints").iterdir())


def test_signals_stop_after_the_step_and_the_run_goes_on_to_the_same_end(digits, tmp_path, monkeypatch, capsys):
    # A network with dropout, a loss that changes and a damaged image: the random state, the schedules and the count of
    # skipped images have to come back too.
    digits = shutil.copytree(digits, tmp_path / "data")
    samples = read_samples(digits / "train.beton")
    with (digits / "train.beton").open("r+b") as file:
        file.seek(int(samples.pointer[np.flatnonzero(samples.is_jpeg)[0]]) + 2)
        file.write(bytes(50))
    changes = {
        "model.arch": "toy_model:SmallWithDropout",
        "loss.name": "maxsup",
        "training.accumulation": 2,
        "data.num_workers": 1,
    }
    changes |= {"data.on_error": "skip"}
    train(config(digits, tmp_path, **changes, **{"logging.name": "whole"}))

    # The signal comes before the n-th time that the trainer asks for one: after each of six steps and of one batch of
    # validation images, in two epochs.
    asked, agreed = 0, StopSignals.agreed
    stops = {2: signal.SIGTERM, 7: signal.SIGUSR1, 9: signal.SIGINT, 14: signal.SIGTERM}

    def signal_then_agree(self, value=0):
        nonlocal asked
        asked += 1
        assert is_active(tmp_path / "runs" / "parts")
        if asked in stops:
            os.kill(os.getpid(), stops[asked])
        return agreed(self, value)

    monkeypatch.setattr(StopSignals, "agreed", signal_then_agree)
    before = signal.getsignal(signal.SIGTERM)
    again = {"logging.name": "parts", "checkpoint.resume": "auto"}
    for workers, code, file in (
        (2, 75, "epoch_0000_step_000002.pt"),
        (1, 75, "epoch_0000_step_000006.pt"),
        (2, 130, "epoch_0001_step_000001.pt"),
        (1, 75, "epoch_0001_step_000006.pt"),
    ):
        with pytest.raises(Interrupted) as caught:
            train(config(digits, tmp_path, **changes | again | {"data.num_workers": workers}))
        assert caught.value.code == code
        assert status(tmp_path, "parts") == {"state": "interrupted", "error": None}
        assert file in checkpoints(tmp_path, "parts")
        assert f"{file}; --checkpoint.resume=auto continues" in capsys.readouterr().err
        assert signal.getsignal(signal.SIGTERM) == before
    train(config(digits, tmp_path, **changes | again))

    assert same(weights(tmp_path, "whole"), weights(tmp_path, "parts"))
    assert without_times(log(tmp_path, "whole")) == without_times(log(tmp_path, "parts"))
    for line in log(tmp_path, "parts"):
        assert line["skipped"] == 1
        assert 0 < line["seconds"] <= line["total_seconds"]
        assert line["wait_share"] <= 1
    assert checkpoints(tmp_path, "whole") == checkpoints(tmp_path, "parts")
    assert status(tmp_path, "parts")["state"] == "finished"
    assert not is_active(tmp_path / "runs" / "parts")


def test_a_second_ctrl_c_does_not_wait(monkeypatch):
    with StopSignals(lambda number: number) as stop:
        for _ in range(2):  # Both from one Ctrl-C under torchrun.
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.agreed() == signal.SIGINT
        monkeypatch.setattr("ffcv_imagenet.train.interruption._SAME_CTRL_C_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_two_processes_cannot_write_one_run(digits, tmp_path):
    run = tmp_path / "runs" / "run"
    with hold(run), pytest.raises(BlockingIOError, match="another process is writing this run"):
        train(config(digits, tmp_path, **{"checkpoint.resume": "auto"}))
    assert [file.name for file in run.iterdir()] == ["lock"]


@dataclass(frozen=True)
class Broken(Baseline):
    """NaN, infinite, or infinite with gradients that are finite, in the n-th batches."""

    batches: dict = field(default_factory=dict)
    seen: list = field(default_factory=list)

    def forward(self, state, outputs, target):
        self.seen.append(target)
        return super().forward(state, outputs, target) + self.batches.get(len(self.seen), 0)


def train_broken(cfg, batches):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ffcv_imagenet.config.TrainConfig.make_loss", lambda self: Broken(batches=batches))
        return train(cfg)


def test_a_loss_that_is_not_finite_is_named_and_never_saved(digits, tmp_path):
    last = "epoch_0001_step_000002.pt"
    lr = 0.01 * (1 - 3 / 6)  # in the second epoch's fourth step
    with pytest.raises(FloatingPointError) as caught:
        train_broken(config(digits, tmp_path, **{"checkpoint.every_steps": 2}), {10: float("nan")})
    for words in ("loss is nan", "step 4 of 6 in epoch 2", f"learning rate {lr:.4g};", f"checkpoints/{last};"):
        assert words in str(caught.value)
    assert checkpoints(tmp_path)[-1] == last
    assert status(tmp_path) == {"state": "failed", "error": str(caught.value)}
    # It continues from there when the loss is finite again.
    train_broken(
        config(digits, tmp_path, **{"checkpoint.resume": "auto", "training.on_nonfinite": "skip"}), {2: float("nan")}
    )
    assert [line["skipped_steps"] for line in log(tmp_path)] == [0, 1]


@pytest.mark.parametrize("spoiled", ["model", "evaluated_model"])
def test_weights_that_are_not_finite_are_never_saved(digits, tmp_path, monkeypatch, spoiled):
    # After the last step of the first epoch, of which no loss tells.
    update, updates = Trainer._update_weights, []

    def spoil(self, loss):
        update(self, loss)
        updates.append(loss)
        if len(updates) == 6:
            next(getattr(self, spoiled).parameters()).data.fill_(float("inf"))

    monkeypatch.setattr(Trainer, "_update_weights", spoil)
    with pytest.raises(FloatingPointError, match="the weights are not finite after step 6 of 6 in epoch 1"):
        train(config(digits, tmp_path, **{"training.ema": 0.9}))
    assert not (tmp_path / "runs" / "run" / "checkpoints").exists()


@contextlib.contextmanager
def broken_evaluation(batches):
    """Networks whose n-th batches of validation images have an image with logits that are not finite."""
    seen = 0

    def spoil(module, images, logits):
        nonlocal seen
        if not module.training:
            seen += 1
            if seen in batches:
                logits[0, 0] = float("nan")

    def build_broken(*arguments, **options):
        model = build_model(*arguments, **options)
        model.register_forward_hook(spoil)
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ffcv_imagenet.experiment.build_model", build_broken)
        yield


@pytest.mark.slow
def test_scores_that_are_not_finite_end_the_training_and_are_no_result(digits, tmp_path):
    with broken_evaluation({2}), pytest.raises(FloatingPointError) as caught:
        train(config(digits, tmp_path))
    text = "1 of 31 validation images have logits that are not finite after step 6 of 6 in epoch 2"
    assert str(caught.value).startswith(text)
    assert [line["epoch"] for line in log(tmp_path)] == [1]
    assert checkpoints(tmp_path) == ["epoch_0001.pt"]
    assert status(tmp_path)["state"] == "failed"
    evaluation = {"training.eval_only": 1, "checkpoint.resume": "auto"}
    with broken_evaluation({1}), pytest.raises(FloatingPointError, match=r"1 of 31 .* there are no scores"):
        evaluate_only(config(digits, tmp_path, **evaluation))


def test_an_epoch_without_scores_is_null_in_the_log_and_never_the_best(digits, tmp_path, capsys):
    changes = {"training.on_nonfinite": "skip", "training.epochs": 3, "checkpoint.keep": 1}
    with broken_evaluation({1}):
        train(config(digits, tmp_path, **changes))
    assert "no scores: 1 validation images have logits that are not finite" in capsys.readouterr().out
    first, second, third = log(tmp_path)
    assert [first[key] for key in ("top_1", "top_k", "val_loss", "val_nonfinite")] == [None, None, None, 1]
    assert second["val_nonfinite"] == third["val_nonfinite"] == 0
    best = 2 if second["top_1"] >= third["top_1"] else 3
    assert checkpoints(tmp_path) == sorted({f"epoch_{best:04d}.pt", "epoch_0003.pt"})
    assert best_epoch([first]) is None


def test_a_run_whose_last_epoch_has_no_scores_fails_also_when_it_is_started_again(digits, tmp_path):
    changes = {"training.on_nonfinite": "skip", "checkpoint.resume": "auto"}
    for _ in range(2):
        with broken_evaluation({2}), pytest.raises(FloatingPointError, match="the last epoch has no scores"):
            train(config(digits, tmp_path, **changes))
        assert status(tmp_path)["state"] == "failed"
        assert checkpoints(tmp_path)[-1] == "epoch_0002.pt"


@pytest.mark.parametrize(("precision", "arch"), [("fp32", "toy_model:Small"), ("fp16", "toy_model:Narrow")])
def test_a_skipped_step_changes_nothing_and_is_counted(digits, tmp_path, monkeypatch, precision, arch):
    seen = []
    update = Trainer._update_weights

    def watch(self, loss):
        if len(seen) in (0, 4):  # The forward pass of a broken step has broken the statistics too.
            self.model.bn1.running_var.fill_(float("nan"))
            # Which is how the other ranks learn of it.
            assert self.model.fc.weight.grad.isnan().any()
        before = [value.clone() for value in self.model.parameters()]
        update(self, loss)
        after = [value.clone() for value in self.model.state_dict().values()]
        assert all(value.isfinite().all() for value in after)
        seen.append(all(torch.equal(a, b) for a, b in zip(before, self.model.parameters(), strict=True)))

    monkeypatch.setattr(Trainer, "_update_weights", watch)
    changes = {"training.on_nonfinite": "skip", "training.epochs": 1, "lr.peak_epoch": 0.5, "checkpoint.every_steps": 1}
    train_broken(
        config(digits, tmp_path, **changes, **{"training.precision": precision, "model.arch": arch}),
        {1: float("nan"), 5: float("inf")},
    )
    (line,) = log(tmp_path)
    assert line["skipped_steps"] == 2
    assert seen[0]
    assert seen[4]
    if precision == "fp32":  # The scaler of fp16 skips a step while it is searching for its scale: no failure.
        assert sum(seen) == 2
    assert 0 < line["train_loss"] < 3
    assert 0 < line["val_loss"] < 3


def test_skipping_every_step_is_an_error(digits, tmp_path):
    with pytest.raises(FloatingPointError, match="loss is nan after step 1 of 6 in epoch 1"):
        train_broken(
            config(digits, tmp_path, **{"training.on_nonfinite": "skip"}), dict.fromkeys(range(99), float("nan"))
        )


def test_a_hostile_checkpoint_is_refused_wherever_it_is_given(digits, tmp_path):
    marker, file = tmp_path / "was_here", tmp_path / "runs" / "run" / "checkpoints" / "epoch_0001.pt"
    file.parent.mkdir(parents=True)
    torch.save({"format": 2, "model": Hostile(f"touch {marker}")}, file)
    for changes in ({"checkpoint.resume": "auto"}, {"checkpoint.resume": file}, {"model.weights": file}):
        for start in (train, evaluate_only):
            with pytest.raises(ValueError, match=r"more than tensors and plain values|none of the 1 checkpoints"):
                start(config(digits, tmp_path, **changes, **{"training.eval_only": int(start is evaluate_only)}))
    assert not marker.exists()


@pytest.mark.slow
def test_killed_at_random_moments_a_run_ends_the_same(digits):
    # The short form of `make soak`; two processes are killed in test_distributed_failures.
    soak = Path(__file__).parent.parent / "soak" / "kills.py"
    command = [sys.executable, soak, "--kills=3", "--rank-kills=0", f"--data={digits}"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"kills survived: 3 .* runs bitwise equal: (\d) of \1; bytes lost: 0", result.stdout)
