"""What a training says before it starts, and how long it says that it takes."""

import os
from pathlib import Path

import pytest
import torch
from whole_runs import config

from ffcv_imagenet import experiment
from ffcv_imagenet.distributed import World
from ffcv_imagenet.overview import describe, sides
from ffcv_imagenet.resolved import resolve

CORES = len(os.sched_getaffinity(0))


def lines(options, size=1):
    world = World(0, size, 0, size, torch.device("cpu"))
    return describe(resolve(options, world), steps=6, path=Path("runs/run"))


def test_a_training_says_what_runs_before_it_starts(digits, tmp_path):
    assert lines(
        config(digits, tmp_path, **{"training.epochs": 4, "resolution.end_ramp": 2, "loss.name": "maxsup"})
    ) == [
        "trains toy_model:Small with maxsup: 4 epochs of 6 steps, 24 in all, on 1 process on the CPU "
        "(fp32, compile off); runs/run",
        "images: 96 of 3 classes to train on, 31 to validate on; decoded on the CPU, 1 CPU thread per process",
        "batch: 16 images a step = 1 process x 16",
        "image side: 32 px (epochs 1-2), 40 px (epochs 3-4); validation 40 px",
    ]
    short = config(digits, tmp_path, **{"training.max_steps": 8, "training.accumulation": 2})
    assert lines(short, 2)[0].startswith(
        "trains toy_model:Small with baseline: 2 epochs of 6 steps, 8 in all, on 2 processes"
    )
    once = config(digits, tmp_path, **{"training.epochs": 1, "resolution.end_ramp": 0, "lr.peak_epoch": "none"})
    assert lines(once)[0].startswith("trains toy_model:Small with baseline: 1 epoch of 6 steps, 6 in all")
    assert lines(short, 2)[2] == "batch: 16 images a step = 2 processes x 2 parts of 4, one part after the other"


def test_the_sides_of_a_ramp():
    assert (
        sides(lambda epoch: (96, 96, 128, 160, 160)[epoch], 5)
        == "96 px (epochs 1-2), 128 px (epoch 3), 160 px (epochs 4-5)"
    )


@pytest.mark.parametrize(
    ("processes", "accumulation", "told"),
    [
        (8, 1, None),
        (4, 2, None),
        (4, 1, "here --training.accumulation=2 gives the same parts of a batch"),
        (1, 2, "here --training.accumulation=8 gives the same parts of a batch"),
        (16, 1, "no --training.accumulation gives the same parts here"),
    ],
)
def test_fewer_gpus_than_a_recipe_is_meant_for(digits, tmp_path, processes, accumulation, told):
    sizes = {"model.arch": "vgg11", "resolution.min_res": 64, "resolution.max_res": 64}  # without batch normalisation
    options = config(digits, tmp_path, **sizes, **{"dist.meant_for": 8, "training.accumulation": accumulation})
    meant = "the recipe is meant for 8 GPUs with 2 images each; "
    assert lines(options, processes)[4:] == ([meant + told] if told else [])


def test_a_dry_run_says_the_same_and_leaves_no_trace(digits, tmp_path, capsys):
    options = config(digits, tmp_path)
    experiment.dry_run(options)
    said = capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    experiment.train(options)
    assert capsys.readouterr().out.startswith(said)
    with pytest.raises(FileExistsError, match="holds a run already"):
        experiment.dry_run(options)
    experiment.dry_run(config(digits, tmp_path, **{"checkpoint.resume": "auto"}))
    assert capsys.readouterr().out == f"{said}continues after 2 epochs\n"
    with pytest.raises(ValueError, match=r"lr.lr: got 0.02, allowed is 0.01"):
        experiment.dry_run(config(digits, tmp_path, **{"checkpoint.resume": "auto", "lr.lr": 0.02}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.weights": "nowhere.pt"}, "weights not found: nowhere.pt"),
        ({"model.frozen": "layer9"}, r"model.frozen: got 'layer9', allowed are modules of the network"),
        ({"model.frozen": "conv1,bn1,layer1,layer2,layer3,layer4,fc"}, r"model.frozen: got the whole network"),
    ],
)
def test_a_dry_run_refuses_what_is_wrong_with_weights_and_parts_of_the_network(digits, tmp_path, changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        experiment.dry_run(config(digits, tmp_path, **changes))
