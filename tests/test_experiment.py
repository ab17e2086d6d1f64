"""Whole runs in this process, on the CPU and on real .beton files."""

import json
import re
import shutil
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from equality import same
from run_folders import read_runs
from whole_runs import config, log, weights

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.data.format.beton import read_samples
from ffcv_imagenet.distributed import World
from ffcv_imagenet.experiment import evaluate_only, train
from ffcv_imagenet.loaders import make_train_loader
from ffcv_imagenet.losses import LOSSES
from ffcv_imagenet.options import build, collect
from ffcv_imagenet.resolved import resolve
from ffcv_imagenet.resume import other_micro_batch
from ffcv_imagenet.train.metrics import Scores


@pytest.mark.parametrize("loss", LOSSES.kinds)
def test_every_loss_trains_and_fills_the_run_folder(digits, tmp_path, loss, capsys):
    last = train(config(digits, tmp_path, **{"loss.name": loss}), recipe="tiny", command=["train"])
    lines = log(tmp_path)
    assert [line["epoch"] for line in lines] == [1, 2]
    assert [line["resolution"] for line in lines] == [32, 40]
    assert lines[-1] == last.as_line()
    assert (lines[-1]["top_k"], lines[-1]["k"]) == (1.0, 3)  # of three classes
    falls = "train_loss" if loss == "ldam" else "val_loss"  # cosines times 30 are sure of themselves from the start
    assert lines[1][falls] < lines[0][falls]
    assert lines[-1]["lr"] == pytest.approx(0.01 / 6)  # of the last of six steps down to zero
    assert 0 <= lines[-1]["wait_share"] <= 1
    assert lines[1]["total_seconds"] == pytest.approx(lines[0]["seconds"] + lines[1]["seconds"])
    params = json.loads((tmp_path / "runs" / "run" / "params.json").read_text())
    assert params["config"]["loss.name"] == loss
    assert params["recipe"] == "tiny"
    assert {"torch", "ffcv", "numpy"} <= set(params["versions"])
    assert json.loads((tmp_path / "runs" / "run" / "status.json").read_text()) == {"state": "finished", "error": None}
    printed = capsys.readouterr().out
    assert re.search(r"final top-1 [\d.]+ %, top-3 100.00 %", printed)
    assert re.search(r"\nthe limit was the (step|data): .*waited for (data|it) \d+ % of the time", printed)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(digits, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(config(digits, tmp_path, **{"logging.name": name, "training.seed": seed, "training.epochs": 2}))
    assert same(weights(tmp_path, "a"), weights(tmp_path, "b"))
    assert not same(weights(tmp_path, "a"), weights(tmp_path, "c"))


def test_accumulation_takes_the_same_steps_without_batch_statistics(digits, tmp_path):
    # A network without batch normalisation, so that a micro-batch's gradient depends on its images alone; in float64,
    # where another order of summing is no more than 1e-9.
    base = {"model.arch": "toy_model:Plain", "training.epochs": 2, "lr.lr": 0.1}
    from ffcv_imagenet import models

    def in_double(arch, num_classes, *, build=models.build_model, **options):
        model = build(arch, num_classes, **options).double()
        model.register_forward_pre_hook(lambda module, images: images[0].double())
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ffcv_imagenet.experiment.build_model", in_double)
        train(config(digits, tmp_path, **base, **{"logging.name": "whole"}))
        train(config(digits, tmp_path, **base, **{"logging.name": "parts", "training.accumulation": 4}))
    whole, parts = weights(tmp_path, "whole"), weights(tmp_path, "parts")
    for key in whole:
        torch.testing.assert_close(whole[key], parts[key], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("precision", "arch"), [("bf16", "toy_model:Small"), ("fp16", "toy_model:Narrow")])
def test_half_precision_trains(digits, tmp_path, precision, arch):
    train(config(digits, tmp_path, **{"training.precision": precision, "model.arch": arch}))
    assert log(tmp_path)[-1]["val_loss"] < log(tmp_path)[0]["val_loss"]
    assert all(w.dtype in (torch.float32, torch.int64) for w in weights(tmp_path).values())


def test_a_checkpoint_with_another_head_is_evaluated_as_it_was_trained(digits, tmp_path):
    options = {"loss.name": "ldam", "loss.scale": 20}
    last = train(config(digits, tmp_path, **options))
    again = {"training.eval_only": 1, "data.train": "none", "checkpoint.resume": "auto"}
    scores = evaluate_only(config(digits, tmp_path, **again, **options))
    assert scores.top_1 == last.top_1
    assert scores.loss == last.val_loss


def test_images_of_other_classes_than_a_checkpoints_are_told_or_refused(digits, tmp_path, capsys):
    short = {"training.epochs": 1, "training.max_steps": 1, "lr.peak_epoch": "none", "resolution.end_ramp": 0}
    train(config(digits, tmp_path, **short))
    shutil.copy(digits / "val.beton", tmp_path)
    manifest = json.loads((digits / "val.beton.json").read_text())
    options = {"training.eval_only": 1, "checkpoint.resume": "auto", "data.val": tmp_path / "val.beton"}
    (tmp_path / "val.beton.json").write_text(json.dumps(manifest | {"classes": ["a", "b", "c"]}))
    evaluate_only(config(digits, tmp_path, **options))
    assert "unlike the run run: " in (out := capsys.readouterr().out)
    assert "val.beton has classes of other names, or in another order" in out
    more = {"classes": list("0123"), "images_per_class": [*manifest["images_per_class"], 0]}
    (tmp_path / "val.beton.json").write_text(json.dumps(manifest | more))
    with pytest.raises(ValueError, match=r"data.val: got .*val.beton with 4 classes, allowed are the 3 of .*runs/run$"):
        evaluate_only(config(digits, tmp_path, **options))


def test_evaluating_a_checkpoint_gives_the_scores_of_training(digits, tmp_path, capsys, monkeypatch):
    read = []
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or whole(path))
    last = train(
        config(digits, tmp_path, **{"validation.flip_tta": 1, "validation.crop_ratio": 0.95, "validation.top_k": 2})
    )
    assert sorted(name for name in read if name.endswith(".beton.json")) == ["train.beton.json", "val.beton.json"]
    scores = Scores(last.top_1, last.top_k, last.val_loss, 31, 2)
    again = {
        "training.eval_only": 1,
        "validation.flip_tta": 1,
        "validation.crop_ratio": 0.95,
        "validation.top_k": 2,
        "data.train": "none",
    }
    assert evaluate_only(config(digits, tmp_path, **again, **{"checkpoint.resume": "auto"})) == scores
    file = tmp_path / "runs" / "run" / "checkpoints" / "epoch_0002.pt"
    assert evaluate_only(config(digits, tmp_path, **again, **{"checkpoint.resume": file})) == scores
    assert evaluate_only(config(digits, tmp_path, **again, **{"model.weights": file})) == scores
    assert "(31 images;" in capsys.readouterr().out

    def evaluated(**words):
        given = collect(TrainConfig, [f"--{key}={value}" for key, value in words.items()], "")
        scores = evaluate_only(build(TrainConfig, given.values, given.origins), given=given)
        return scores, capsys.readouterr().out

    # Of a file or a run folder, what is not given is as the run was validated, down to the validation images.
    given = {"training.eval_only": 1, "dist.device": "cpu", "dist.cpu_threads": 1, "data.num_workers": 1}
    for words in ({"checkpoint.resume": file}, {"checkpoint.resume": file.parents[1]}, {"model.weights": file}):
        got, printed = evaluated(**given, **words)
        assert got == scores
        assert "model.arch=toy_model:Small" in printed
        assert "validation.resolution=40" in printed
        assert "unlike" not in printed
    got, printed = evaluated(**given, **{"checkpoint.resume": file, "validation.resolution": 64})
    assert got != scores
    assert "unlike the run run: validation.resolution=64, which had 40" in printed
    _, printed = evaluated(**given, **{"checkpoint.resume": file, "data.val": digits / "train.beton"})
    assert f"unlike the run run: {digits / 'train.beton'} holds other images" in printed
    for key in ("checkpoint.resume", "model.weights"):
        with pytest.raises(
            ValueError, match=r"0002.pt is a checkpoint of model.arch=toy_model:Small, got model.arch=resnet18"
        ):
            evaluated(**given, **{key: file, "model.arch": "resnet18"})
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*: allowed is a checkpoint or the folder of a run"):
        evaluated(**given, **{"checkpoint.resume": tmp_path})


def test_a_smoke_test_is_a_whole_run_that_is_compared_with_none_but_its_like(digits, tmp_path):
    short = {"training.max_steps": 2, "logging.name": "none", "model.arch": "resnet10"}
    last = train(config(digits, tmp_path, **short), recipe="tiny")
    assert last.lr == pytest.approx(0.01 * (1e-4 + (1 - 1e-4) / 6))  # of the second of six steps up to the peak
    assert last.top_1 is not None
    [run] = read_runs(tmp_path)
    assert (run.name, run.recipe) == ("tiny_resnet10_baseline_seed0_2_steps", "tiny (2 steps)")
    assert (run.state, run.finished, run.epochs) == ("finished", True, 1)


def test_a_finished_run_that_is_started_again_stays_as_it_is(digits, tmp_path):
    last = train(config(digits, tmp_path), command=["first"])
    before = log(tmp_path)
    assert train(config(digits, tmp_path, **{"checkpoint.resume": "auto"}), command=["second"]) == last
    assert log(tmp_path) == before
    params = json.loads((tmp_path / "runs" / "run" / "params.json").read_text())
    assert params["command"] == ["first"]
    assert [start["command"] for start in params["resumed"]] == [["second"]]


def test_evaluations_may_be_fewer_and_change_nothing_else(digits, tmp_path, capsys):
    for name, every in (("each", 1), ("second", 2)):
        options = {"logging.name": name, "training.epochs": 3, "validation.every": every, "checkpoint.keep": 1}
        train(config(digits, tmp_path, **options))
    assert same(weights(tmp_path, "each", 3), weights(tmp_path, "second", 3))
    each, second = log(tmp_path, "each"), log(tmp_path, "second")
    of_validation = {"top_1", "top_k", "val_loss", "val_skipped", "val_nonfinite"}
    assert {key for key, value in second[0].items() if value is None} == of_validation
    for epoch in (1, 2):
        assert {key: second[epoch][key] for key in of_validation} == {key: each[epoch][key] for key in of_validation}
    assert [line["train_loss"] for line in each] == [line["train_loss"] for line in second]
    assert "epoch   1/3  not evaluated  train loss " in capsys.readouterr().out
    best = max(second[1:], key=lambda line: line["top_1"])["epoch"]
    kept = {file.name for file in (tmp_path / "runs" / "second" / "checkpoints").iterdir()}
    assert kept == {"epoch_0003.pt", f"epoch_{best:04d}.pt"}
    [run] = [run for run in read_runs(tmp_path / "runs") if run.name == "second"]
    assert run.finished
    assert run.last_top_1 == each[2]["top_1"]


@pytest.mark.slow
def test_checkpoints_are_pruned_but_never_the_best_or_the_last(digits, tmp_path):
    train(config(digits, tmp_path, **{"training.epochs": 4, "checkpoint.keep": 1}))
    lines = log(tmp_path)
    best = max(lines, key=lambda line: line["top_1"])["epoch"]
    kept = {file.name for file in (tmp_path / "runs" / "run" / "checkpoints").iterdir()}
    assert kept == {"epoch_0004.pt", f"epoch_{best:04d}.pt"}


def test_mistakes_are_found_before_anything_is_written(digits, tmp_path):
    for changes, message in [
        ({"model.arch": "resnet49"}, "model.arch"),
        ({"model.arch": "vit_b_16"}, "cannot take images of 32 x 32"),
        ({"training.batch_size": 97}, "allowed are at most the 96 images"),
        ({"training.batch_size": 16, "training.accumulation": 3}, "allowed is a multiple of 3"),
        ({"training.batch_size": 16, "training.accumulation": 16}, "a micro-batch has one image"),
        ({"data.num_workers": 1000}, "data.num_workers"),
        ({"checkpoint.resume": tmp_path / "no.pt"}, "checkpoint not found"),
        ({"data.val": tmp_path / "no.beton"}, "data set not found"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            train(config(digits, tmp_path, **changes))
    assert not (tmp_path / "runs").exists()


def test_a_micro_batch_of_another_size_is_told_with_what_keeps_it():
    was = {"micro_batch": 24}
    now = {"config": {"training.batch_size": 96, "training.accumulation": 4}, "world_size": 2, "micro_batch": 12}
    assert other_micro_batch(was, now) == (
        "training.batch_size=96 on 2 processes with training.accumulation=4 are micro-batches of 12 images; to "
        "continue a run with micro-batches of 24, allowed is --training.accumulation=2"
    )
    now |= {"world_size": 3, "micro_batch": 8}
    assert other_micro_batch(was, now).endswith(
        "allowed is a number of processes that divides 4, with --training.accumulation=4 / this number"
    )


def test_automatic_workers_are_the_smaller_of_share_and_limit(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1})
    world = World(0, 1, 0, 1, torch.device("cpu"))
    for limit in (1, 3):
        monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", limit)
        loader = make_train_loader(resolve(config(digits, tmp_path, **{"data.num_workers": 0}), world))
        assert loader.num_workers == min(2, limit)


@pytest.mark.slow
def test_a_run_is_neither_written_over_nor_continued_with_other_options(digits, tmp_path):
    train(config(digits, tmp_path, **{"training.epochs": 2}))
    before = log(tmp_path)
    with pytest.raises(FileExistsError, match="holds a run already"):
        train(config(digits, tmp_path))
    file = tmp_path / "runs" / "run" / "checkpoints" / "epoch_0002.pt"
    for changes, message in [
        ({"lr.lr": 0.06}, r"lr.lr: got 0.06, allowed is 0.01 to continue"),
        ({"training.precision": "bf16"}, r"precision: got bf16, allowed is fp32"),
        ({"training.accumulation": 2}, r"micro-batches of 8 .* of 16, allowed is --training.accumulation=1$"),
        ({"data.val": digits / "train.beton", "data.on_wrong_split": "warn"}, r"val_data: got"),
        ({"model.arch": "resnet18"}, r"model.arch: got resnet18"),
        ({"data.resize": "area"}, r"data.resize: got area, allowed is triangle to continue"),
    ]:
        with pytest.raises(ValueError, match=message):
            train(config(digits, tmp_path, **{"checkpoint.resume": "auto"} | changes))
        with pytest.raises(ValueError, match=message):
            train(config(digits, tmp_path, **{"checkpoint.resume": file, "logging.name": "other"} | changes))
    other = tmp_path / "copy.pt"
    other.write_bytes(file.read_bytes())
    with pytest.raises(FileExistsError, match="holds a run already"):
        train(config(digits, tmp_path, **{"checkpoint.resume": other}))
    # What says where and how it runs may change; a log that was ahead is what the checkpoint knows.
    (tmp_path / "runs" / "run" / "log.jsonl").write_text("")
    changes = {"data.on_error": "skip", "training.on_nonfinite": "skip", "data.num_workers": 2}
    train(config(digits, tmp_path, **{"checkpoint.resume": "auto"} | changes))
    assert log(tmp_path) == before
    assert {folder.name for folder in (tmp_path / "runs").iterdir()} == {"run"}


@pytest.mark.slow
def test_a_checkpoint_can_be_continued_under_another_name(digits, tmp_path):
    whole = config(digits, tmp_path, **{"logging.name": "whole"})
    train(whole)
    first = tmp_path / "runs" / "whole" / "checkpoints" / "epoch_0001.pt"
    train(config(digits, tmp_path, **{"logging.name": "rest", "checkpoint.resume": first}))
    assert same(weights(tmp_path, "whole"), weights(tmp_path, "rest"))
    assert [line["epoch"] for line in log(tmp_path, "rest")] == [1, 2]


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(digits, tmp_path, capsys):
    train(config(digits, tmp_path))
    whole = weights(tmp_path)
    file = tmp_path / "runs" / "run" / "checkpoints" / "epoch_0002.pt"
    file.write_bytes(file.read_bytes()[:1000])
    train(config(digits, tmp_path, **{"checkpoint.resume": "auto"}))
    assert "epoch_0002.pt cannot be read" in capsys.readouterr().err
    assert same(weights(tmp_path), whole)
    assert [line["epoch"] for line in log(tmp_path)] == [1, 2]


@pytest.mark.parametrize("content", ["", "[]"])
def test_a_damaged_params_file_is_named(digits, tmp_path, content):
    file = tmp_path / "runs" / "run" / "params.json"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    with pytest.raises(ValueError, match=rf"^{file}"):
        train(config(digits, tmp_path, **{"checkpoint.resume": "auto"}))


def test_a_loss_that_is_not_finite_stops_the_run_and_says_so(digits, tmp_path):
    with pytest.raises(FloatingPointError, match="epoch 1"):
        train(config(digits, tmp_path, **{"lr.lr": 1e30, "lr.peak_epoch": 0.1}))
    status = json.loads((tmp_path / "runs" / "run" / "status.json").read_text())
    assert status["state"] == "failed"
    assert "training loss" in status["error"]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_training_on_a_gpu(digits, tmp_path, precision):
    train(config(digits, tmp_path, **{"dist.device": "cuda", "training.precision": precision}))
    assert log(tmp_path)[-1]["val_loss"] < log(tmp_path)[0]["val_loss"]


def test_damaged_images_stop_the_run_or_are_skipped_and_counted(digits, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(digits, data)
    for split, places in (("train", [0, 5, 9]), ("val", [1, -1])):
        samples = read_samples(data / f"{split}.beton")
        for number in np.flatnonzero(samples.is_jpeg)[places].tolist():
            with (data / f"{split}.beton").open("r+b") as file:
                file.seek(int(samples.pointer[number]) + 2)
                file.write(bytes(50))
    options = {"training.batch_size": 96, "training.accumulation": 3}  # every image in every epoch
    with pytest.raises(ValueError, match=r"train.beton: sample \d+ is damaged"):
        train(config(data, tmp_path, **options))
    skip = options | {"data.on_error": "skip", "data.order": "quasi_random", "checkpoint.resume": "auto"}
    train(config(data, tmp_path, **skip | {"logging.name": "skip"}))
    assert [(line["skipped"], line["val_skipped"]) for line in log(tmp_path, "skip")] == [(3, 2), (3, 2)]
    shown = capsys.readouterr()
    assert shown.out.count("damaged: 3 training and 2 validation images skipped") == 2
    assert len(re.findall(r"sample \d+ is damaged: .*; it is skipped", shown.err)) == 5
    assert "train.beton holds its images class by class" in shown.err
    scores = evaluate_only(config(data, tmp_path, **skip | {"logging.name": "skip", "training.eval_only": 1}))
    assert scores.images == 29
    assert "(29 images, 2 damaged ones left out; " in capsys.readouterr().out
