"""A loss that is added, in the list or from outside, is trained, swept and reported like all others."""

import json
import shutil
from pathlib import Path

import pytest
import toy_loss
from run_folders import read_runs
from toy_loss import Toy
from whole_runs import config

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.experiment import train
from ffcv_imagenet.losses import LOSSES
from ffcv_imagenet.options import flatten, parse
from ffcv_imagenet.report.table import table
from ffcv_imagenet.sweep.plan import make_plan

DATA = ("--data.train=train.beton", "--data.val=val.beton")


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(LOSSES.kinds, "toy", Toy)


def sweep(digits, tmp_path, *words):
    data = (f"--data.train={digits / 'train.beton'}", f"--data.val={digits / 'val.beton'}", "--dist.device=cpu")
    options = (*data, "--training.batch_size=24", "--model.arch=resnet10", f"--runs={tmp_path / 'sweep'}")
    return make_plan([*options, *words]).runs


def test_a_loss_in_the_list_is_trained_swept_and_reported(toy, digits, tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse(TrainConfig, ["--help"], "")
    assert "toy: weight of the soft targets (a number from 0 to 1; default: 0.5)" in " ".join(
        capsys.readouterr().out.split()
    )
    with pytest.raises(ValueError, match=r"loss.strength: got '?2'?, allowed is a number from 0 to 1"):
        parse(TrainConfig, [*DATA, "--loss.name=toy", "--loss.strength=2"], "")
    with pytest.raises(ValueError, match=r"loss.strength: got 0.5 for loss.name=maxsup, which takes .*loss.name=toy"):
        parse(TrainConfig, [*DATA, "--loss.name=maxsup", "--loss.strength=0.5"], "")

    train(config(digits, tmp_path, **{"loss.name": "toy", "loss.strength": 0.25}))
    folder = tmp_path / "runs" / "run"
    assert json.loads((folder / "params.json").read_text())["config"]["loss.strength"] == 0.25
    first, second = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert (first["loss.weight"], second["loss.weight"]) == pytest.approx((0.25 * (1 + 5 / 12), 0.25 * (1 + 11 / 12)))
    assert 1 / 3 < first["loss.confidence"] <= 1

    runs = sweep(digits, tmp_path, "--sweep.loss=baseline,toy", "--sweep.loss.strength=0.1,0.2")
    assert [run.name.removeprefix("none_resnet10_") for run in runs] == [
        *("baseline_seed0", "toy_seed0_loss.strength=0.1", "toy_seed0_loss.strength=0.2"),
    ]
    train(config(digits, tmp_path, **{"logging.name": "maxsup", "loss.name": "maxsup"}))
    assert [row.loss for row in table(read_runs(tmp_path / "runs"))] == ["maxsup", "toy"]


def test_a_loss_of_another_package_needs_no_change_here(digits, tmp_path, monkeypatch):
    shutil.copy(toy_loss.__file__, tmp_path / "their_losses.py")
    monkeypatch.syspath_prepend(tmp_path)
    words = [*DATA, "--loss.name=their_losses:Toy", "--loss.strength=0.25"]
    flat = flatten(parse(TrainConfig, words, ""))
    assert (flat["loss.name"], flat["loss.strength"]) == ("their_losses:Toy", 0.25)
    (tmp_path / "theirs.yaml").write_text("loss: {name: 'their_losses:Toy', strength: 0.75}")
    assert flatten(parse(TrainConfig, [*DATA, f"-C{tmp_path / 'theirs.yaml'}"], ""))["loss.strength"] == 0.75
    runs = sweep(digits, tmp_path, "--sweep.loss=baseline,their_losses:Toy")
    assert Path(runs[1].name).name == runs[1].name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Toy", r"loss.name: got 'no_such_module:Toy', which cannot be imported: No module named"),
        ("toy_loss:Tyo", r"loss.name: got 'toy_loss:Tyo', which cannot be imported"),
        ("pathlib:Path", r"loss.name: got 'pathlib:Path', allowed is a dataclass that is a subclass of .*Loss"),
        ("toy", r"loss.name: got 'toy', allowed is baseline \| label_smoothing \| maxsup"),
    ],
)
def test_a_loss_that_is_none_is_told(name, message):
    with pytest.raises(ValueError, match=message):
        parse(TrainConfig, [*DATA, f"--loss.name={name}"], "")
