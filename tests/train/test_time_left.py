"""How long a training says that it takes."""

import pytest
import torch
from memory_trainer import CLASSES, make_trainer

from ffcv_imagenet.losses.baseline import Baseline
from ffcv_imagenet.models import build_model
from ffcv_imagenet.train import trainer as trainers
from ffcv_imagenet.train.time_left import guess_evaluation, seconds_left


def test_the_time_left_follows_the_pixels_of_the_epochs_to_come():
    plan = {"steps": [10, 10, 5], "sides": [100, 100, 200], "evaluations_seconds": 3.0}
    assert seconds_left(**plan, epoch=0, step=0, seconds_per_step=2.0) == (10 + 10 + 4 * 5) * 2 + 3
    assert seconds_left(**plan, epoch=1, step=4, seconds_per_step=2.0) == (6 + 4 * 5) * 2 + 3
    assert seconds_left(**plan, epoch=2, step=4, seconds_per_step=8.0) == 8 + 3
    # Ten times the images of a step, a third of the work, at twice the side, for an image and its mirror image.
    guess = guess_evaluation(1000, 200, step_images=100, step_side=100, seconds_per_step=3.0, passes=2)
    assert guess == pytest.approx(3.0 * 10 / 3 * 4 * 2)


def test_only_the_evaluations_to_come_take_time():
    trainer = make_trainer(
        build_model("resnet10", CLASSES),
        Baseline(),
        batches=4,
        batch_size=2,
        epochs=7,
        evaluate_every=3,
        lr=lambda epoch: 0.0,
    )
    trainer.evaluation_seconds = 1000.0  # after epochs 3, 6 and 7
    assert [trainer._seconds_left(0.0)] == [3000.0]
    trainer.epochs_done = 3
    assert [trainer._seconds_left(0.0)] == [2000.0]


@pytest.mark.parametrize(("show", "times"), [(True, 1), (False, 0)])
def test_the_first_steps_tell_the_time_of_the_training_once(monkeypatch, capsys, show, times):
    monkeypatch.setattr(trainers, "_PACE_STEPS", 2)
    monkeypatch.setattr(trainers, "_PACE_SECONDS", 0.0)
    torch.manual_seed(0)
    trainer = make_trainer(build_model("resnet10", CLASSES), Baseline(), batches=4, batch_size=2, show_progress=show)
    trainer.fit(None, None)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("about ")]
    assert len(told) == times
    assert all(line.endswith(" s a step of 32 px") and " s to go on this machine, at " in line for line in told)
