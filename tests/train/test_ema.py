"""The average of the weights: its values, and the runs that use it."""

import copy
import json

import pytest
import torch
from equality import same
from torch import nn
from whole_runs import config, log

from ffcv_imagenet.experiment import evaluate_only, train
from ffcv_imagenet.run.checkpoint import CheckpointFolder
from ffcv_imagenet.run.weights import load_weights
from ffcv_imagenet.train.ema import WeightAverage


def test_it_follows_the_weights_and_the_statistics():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    average = WeightAverage(model, 0.5)
    expected = copy.deepcopy(model.state_dict())
    for steps, decay in ((1, 2 / 11), (2, 3 / 12), (100, 0.5)):
        model(torch.randn(2, 3, 4, 4))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_()
        average.update(steps)
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                expected[key] = decay * expected[key] + (1 - decay) * value
            else:
                expected[key] = value.clone()
    for key, value in average.model.state_dict().items():
        torch.testing.assert_close(value, expected[key])
    assert average.model[1].num_batches_tracked == 3
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    assert average.model[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_it_is_what_is_evaluated_and_a_resumed_run_has_the_same(digits, tmp_path, monkeypatch, capsys):
    changes = {"training.ema": 0.9, "training.epochs": 2, "checkpoint.every_steps": 4}
    last = train(config(digits, tmp_path, **changes, **{"logging.name": "whole"}))

    # Stopped in the middle of the second epoch.
    save = CheckpointFolder.save

    def save_then_stop(self, state, epochs_done, step=0, best_epoch=None):
        save(self, state, epochs_done, step, best_epoch)
        if (epochs_done, step) == (1, 4):
            raise KeyboardInterrupt

    again = config(digits, tmp_path, **changes, **{"logging.name": "parts", "checkpoint.resume": "auto"})
    monkeypatch.setattr(CheckpointFolder, "save", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        train(again)
    monkeypatch.undo()
    train(again)
    whole, parts = (
        torch.load(tmp_path / "runs" / name / "checkpoints" / "epoch_0002.pt", weights_only=True)
        for name in ("whole", "parts")
    )
    assert same(whole["ema"], parts["ema"])
    assert same(whole["model"], parts["model"])
    assert not same(whole["ema"], whole["model"])
    assert [line["val_loss"] for line in log(tmp_path, "whole")] == [
        line["val_loss"] for line in log(tmp_path, "parts")
    ]

    # The scores of the log are those of the averaged weights, and whoever evaluates the checkpoint gets these.
    capsys.readouterr()
    evaluation = {"training.eval_only": 1, "data.train": "none", "logging.name": "whole"}
    scores = evaluate_only(config(digits, tmp_path, **evaluation, **{"checkpoint.resume": "auto"}))
    assert (scores.top_1, scores.loss) == (last.top_1, last.val_loss)
    assert "epoch 2, averaged weights)" in capsys.readouterr().out
    file = tmp_path / "runs" / "whole" / "checkpoints" / "epoch_0002.pt"
    assert evaluate_only(config(digits, tmp_path, **evaluation, **{"model.weights": file})) == scores
    params = json.loads((tmp_path / "runs" / "whole" / "params.json").read_text())
    assert params["config"]["training.ema"] == 0.9


def test_weights_of_a_checkpoint_with_an_average_are_the_average(tmp_path):
    model, average = nn.Linear(2, 2), nn.Linear(2, 2)
    torch.save({"model": model.state_dict(), "ema": average.state_dict()}, tmp_path / "a.pt")
    torch.save({"model": model.state_dict(), "ema": None}, tmp_path / "b.pt")
    for name, source in (("a", average), ("b", model)):
        loaded = nn.Linear(2, 2)
        load_weights(loaded, tmp_path / f"{name}.pt")
        assert same(loaded.state_dict(), source.state_dict())
