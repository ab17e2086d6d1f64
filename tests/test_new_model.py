"""A model of another package is trained, evaluated, swept and reported like torchvision's."""

import shutil
from pathlib import Path

import pytest
import toy_model
from run_folders import read_runs
from whole_runs import config

from ffcv_imagenet.experiment import evaluate_only, train
from ffcv_imagenet.models import build_model, check_model
from ffcv_imagenet.report.table import table
from ffcv_imagenet.sweep.plan import make_plan


def test_a_model_of_another_package_needs_no_change_here(digits, tmp_path, monkeypatch):
    shutil.copy(toy_model.__file__, tmp_path / "their_models.py")
    monkeypatch.syspath_prepend(tmp_path)
    mine = {"model.arch": "their_models:Toy"}
    last = train(config(digits, tmp_path, **mine))
    scores = evaluate_only(config(digits, tmp_path, **mine, **{"training.eval_only": 1, "checkpoint.resume": "auto"}))
    assert scores.top_1 == last.top_1
    assert [row.architecture for row in table(read_runs(tmp_path / "runs"))] == ["their_models:Toy"]

    data = (f"--data.train={digits / 'train.beton'}", f"--data.val={digits / 'val.beton'}", "--dist.device=cpu")
    words = (*data, f"--runs={tmp_path / 'sweep'}", "--sweep.model.arch=resnet10,their_models:Toy")
    runs = make_plan([*words, "--training.batch_size=24"]).runs
    assert Path(runs[1].name).name == runs[1].name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Toy", "which cannot be imported: No module named"),
        ("toy_model:Tyo", "which cannot be imported"),
        ("toy_model:without_classes", "allowed is a function or class that takes num_classes=K"),
        ("toy_model:__doc__", "allowed is a function or class that takes num_classes=K"),
        ("toy_model:no_network", "which makes 3, allowed is a torch.nn.Module"),
    ],
)
def test_what_makes_no_model_is_told(name, message):
    with pytest.raises(ValueError, match=rf"model.arch: got '{name}', {message}"):
        build_model(name, 3)


def test_a_model_whose_output_is_no_logits_is_refused_before_the_start():
    with pytest.raises(ValueError, match=r"model.arch=toy_model:features makes \(2, 4\) of 2 images, .* \(2, 3\)"):
        check_model("toy_model:features", 3, [32])
