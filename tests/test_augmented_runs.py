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


def repeated(digits, tmp_path, rank=0, ranks=1, **changes):
    settings = config(digits, tmp_path, **{"data.repeats": 4, **changes})
    return make_train_loader(resolve(settings, World(rank, ranks, rank, ranks, torch.device("cpu"))))


def images_of(batches):
    return [batch.images.clone() for batch in batches]


def test_copies_of_an_image_have_crops_of_their_own_the_same_on_any_rank(digits, tmp_path):
    loader = repeated(digits, tmp_path)
    samples = loader.order.sample_order(1)[:16]
    whole = images_of(loader.epoch(1, 32))
    assert len(whole) == 96 // 16
    for sample in set(samples.tolist()):
        copies = whole[0][torch.from_numpy(samples == sample)]
        assert len(copies) == 4
        assert len(copies.flatten(1).unique(dim=0)) > 1  # the digits are small, two crops may be the same
    assert all(
        torch.equal(*both) for both in zip(images_of(loader.epoch(1, 32, first_batch=4)), whole[4:], strict=True)
    )
    parts = [images_of(repeated(digits, tmp_path, rank, 2).epoch(1, 32)) for rank in range(2)]
    assert all(torch.equal(torch.cat(both), one) for *both, one in zip(*parts, whole, strict=True))
    first = loader.order.repeat_numbers()[:16] == 0
    plain = repeated(digits, tmp_path, **{"data.repeats": 1})
    plain.order = loader.order  # as it is, without numbers of copies
    plain.order.repeat_numbers = lambda: loader.order._places() * 0
    assert torch.equal(next(plain.epoch(1, 32)).images[first], whole[0][first])


@pytest.mark.parametrize("crop", ["random", "squash", "padded"])
def test_every_kind_of_crop_is_decoded(digits, tmp_path, crop):
    world = World(0, 1, 0, 1, torch.device("cpu"))
    batches = []
    for changes in ({"data.crop": crop, "data.min_crop_area": "none"}, {}):
        loader = make_train_loader(resolve(config(digits, tmp_path, **changes), world))
        batches.append(next(loader.epoch(0, 32)).images.clone())
    assert batches[0].shape == batches[1].shape
    assert not torch.equal(*batches)
