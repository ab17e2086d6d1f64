import math

import numpy as np
import pytest
import torch

from ffcv_imagenet.schedules import PIECEWISE_START, SCHEDULES, make_lr_schedule, resolution_at


@pytest.mark.parametrize(
    ("epoch", "share"), [(0, PIECEWISE_START), (1, (1 + PIECEWISE_START) / 2), (2, 1), (9, 0.5), (16, 0)]
)
def test_piecewise_peaks_and_ends_at_zero(epoch, share):
    assert make_lr_schedule("piecewise", lr=1.7, epochs=16)(epoch) == pytest.approx(1.7 * share)


@pytest.mark.parametrize(("epochs", "peak"), [(16, 2), (200, 5), (3, 0.7), (16, 0)])
def test_piecewise_is_numpys_interpolation_to_the_last_bit(epochs, peak):
    schedule = make_lr_schedule("piecewise", lr=1.0, epochs=epochs, peak_epoch=peak)
    for epoch in np.arange(0, epochs, 0.01).tolist():
        assert schedule(epoch) == np.interp(epoch, [0, peak, epochs], [PIECEWISE_START, 1.0, 0.0])


@pytest.mark.parametrize(("epoch", "lr"), [(0, 0.8), (29.99, 0.8), (30, 0.08), (60, 0.008), (89, 0.008)])
def test_step_drops_at_its_epochs(epoch, lr):
    assert make_lr_schedule("step", lr=0.8, epochs=90)(epoch) == pytest.approx(lr)


@pytest.mark.parametrize(("epoch", "lr"), [(0, 0.1), (44.99, 0.1), (45, 0.01), (79, 0.01), (80, 0.001), (99, 0.001)])
def test_steps_at_given_epochs(epoch, lr):
    assert make_lr_schedule("step", lr=0.1, epochs=100, step_epochs=(45, 80))(epoch) == pytest.approx(lr)


@pytest.mark.parametrize("epoch", [0, 0.5, 10, 100, 199.5, 200])
def test_cosine_is_half_a_cosine(epoch):
    expected = 0.85 * (1 + math.cos(math.pi * epoch / 200)) / 2
    assert make_lr_schedule("cosine", lr=0.85, epochs=200)(epoch) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["cosine", "step"])
def test_warmup_is_linear_from_zero(name):
    schedule = make_lr_schedule(name, lr=1.0, epochs=20, warmup_epochs=5)
    assert [schedule(e) for e in (0, 1, 2.5)] == pytest.approx([0, 0.2, 0.5])
    assert schedule(5) == pytest.approx(1.0)


def test_a_cosine_with_a_warm_up_and_a_floor_is_torchs():
    """As for DeiT: from 1e-6 to 1e-3 in 5 epochs, then down to 1e-5."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1e-3)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1e-3, total_iters=5)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=295, eta_min=1e-5)
    torchs = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm_up, cosine], milestones=[5])
    ours = make_lr_schedule("cosine", lr=1e-3, epochs=300, warmup_epochs=5, warmup_start=1e-3, end=0.01)
    for epoch in range(300):
        assert ours(epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        torchs.step()


@pytest.mark.parametrize("name", SCHEDULES.kinds)
def test_rates_are_never_negative_nor_above_the_peak(name):
    schedule = make_lr_schedule(name, lr=0.3, epochs=12)
    rates = np.array([schedule(e) for e in np.linspace(0, 12, 500)])
    assert rates.min() >= 0
    assert rates.max() <= 0.3 * (1 + 1e-12)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("cosine", {"peak_epoch": 2}, ["lr.peak_epoch", "lr.warmup_epochs"]),
        ("piecewise", {"step_ratio": 0.1}, ["lr.step_ratio", "lr.peak_epoch"]),
        ("piecewise", {"peak_epoch": 16}, ["lr.peak_epoch", "less than training.epochs=16"]),
        ("cosine", {"warmup_epochs": 20}, ["lr.warmup_epochs", "16"]),
        (
            "step",
            {"step_epochs": (5.0, 16.0)},
            ["lr.step_epochs: got 5,16, allowed is less than training.epochs=16, or none"],
        ),
        ("step", {"step_length": 30}, ["lr.step_length: got 30, allowed is less than training.epochs=16, or none"]),
        (
            "step",
            {"step_length": 5, "step_epochs": (5.0,)},
            ["lr.step_length: got 5, allowed is none where lr.step_epochs"],
        ),
        ("linear", {}, ["lr.schedule", "piecewise | step | cosine"]),
    ],
)
def test_options_of_another_schedule_are_refused(name, options, words):
    with pytest.raises(ValueError) as error:
        make_lr_schedule(name, lr=1.0, epochs=16, **options)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("epoch", "side"), [(0, 96), (10, 96), (12, 96), (13, 128), (17, 160), (20, 192), (21, 192), (25, 224), (30, 224)]
)
def test_resolution_in_steps_of_32(epoch, side):
    got = resolution_at(epoch, min_res=96, max_res=224, start_ramp=10, end_ramp=26)
    exact = 96 + (224 - 96) * min(max(epoch - 10, 0) / 16, 1)
    assert got % 32 == 0
    assert abs(got - exact) <= 16
    assert got == side or abs(abs(got - exact) - 16) < 1e-9


def test_resolution_stays_inside_its_limits_and_jumps_without_a_ramp():
    sides = [resolution_at(e, min_res=40, max_res=50, start_ramp=2, end_ramp=8) for e in range(12)]
    assert min(sides) == 40
    assert max(sides) == 50
    assert [resolution_at(e, min_res=32, max_res=64, start_ramp=3, end_ramp=3) for e in range(3, 6)] == [32, 64, 64]
