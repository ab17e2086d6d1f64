"""Whole runs with augmentations, on the CPU and on real .beton files."""

import pytest
import torch
from whole_runs import config, log

from ffcv_imagenet.distributed import World
from ffcv_imagenet.experiment import train
from ffcv_imagenet.loaders import make_train_loader
from ffcv_imagenet.resolved import resolve

EVERYTHING = {
    "data.crop": "padded",
    "data.padding": 3,
    "data.min_crop_area": "none",
    "augment.policy": "timm_randaugment",
    "augment.color_jitter": "0.3,0.3,0.3,0.1",
    "augment.grayscale_prob": 0.1,
    "augment.gaussian_blur_prob": 0.1,
    "augment.solarize_prob": 0.1,
    "augment.erasing": 0.25,
    "augment.mixup": 0.8,
    "augment.cutmix": 1,
    "loss.name": "maxsup",
}


def test_all_augmentations_train_together_and_accumulate(digits, tmp_path):
    train(config(digits, tmp_path, **EVERYTHING, **{"training.accumulation": 2, "training.ema": 0.9}))
    lines = log(tmp_path)
    train(config(digits, tmp_path, **EVERYTHING, **{"training.accumulation": 2, "logging.name": "plain"}))
    assert [line["train_loss"] for line in log(tmp_path, "plain")] == [line["train_loss"] for line in lines]
    assert lines[-1]["train_loss"] > 0


@pytest.mark.parametrize("crop", ["random", "squash", "padded"])
def test_every_kind_of_crop_is_decoded(digits, tmp_path, crop):
    world = World(0, 1, 0, 1, torch.device("cpu"))
    batches = []
    for changes in ({"data.crop": crop, "data.min_crop_area": "none"}, {}):
        loader = make_train_loader(resolve(config(digits, tmp_path, **changes), world))
        batches.append(next(loader.epoch(0, 32)).images.clone())
    assert batches[0].shape == batches[1].shape
    assert not torch.equal(*batches)
