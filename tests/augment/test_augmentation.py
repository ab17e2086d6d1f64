"""A batch through a whole augmentation: each image its own operations, the same however the batch is cut up."""

import numpy as np
import pytest
import torch

from ffcv_imagenet.augment.augmentation import Augmentation, apply_layers
from ffcv_imagenet.augment.draws import Purpose
from ffcv_imagenet.augment.normalize import Normalize
from ffcv_imagenet.augment.operations import OPERATIONS
from ffcv_imagenet.augment.pixels import Sampling
from ffcv_imagenet.augment.policies import POLICIES
from ffcv_imagenet.augment.policies.policy import Layer
from ffcv_imagenet.augment.policies.shift import RandomShift
from ffcv_imagenet.imagenet import IMAGENET_MEAN

SIDE, BATCH = 24, 32
SAMPLING = Sampling("bilinear", (1, 2, 3))


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (BATCH, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
    return images.permute(0, 3, 1, 2)


def augmentation(policy="timm_randaugment", **options):
    policies = {Purpose.POLICY: POLICIES.choose(policy)} if policy != "none" else {}
    options = {"seed": 5, "mean": IMAGENET_MEAN, "normalize": Normalize(), "device": torch.device("cpu")} | options
    return Augmentation(policies=policies, **options)


def test_each_image_gets_its_own_operations_in_the_layers_order():
    random, names = np.random.default_rng(0), ("rotate", "invert", "solarize")
    layers = [
        Layer(names, random.integers(-1, 3, BATCH), random.choice([20.0, 100.0], BATCH)),
        Layer(("brightness",), np.zeros(BATCH, int), random.random(BATCH) + 0.5),
        Layer(names, np.full(BATCH, -1), np.zeros(BATCH)),
    ]
    images = batch()
    expected = images.clone()
    for i in range(BATCH):
        for layer in layers:
            if layer.chosen[i] >= 0:
                operation = OPERATIONS[layer.operations[layer.chosen[i]]]
                parameters = torch.from_numpy(operation.parameters(layer.strengths[i : i + 1], SIDE))
                operation(expected[i : i + 1].permute(0, 2, 3, 1), torch.tensor([0]), parameters, SAMPLING)
    augmented = apply_layers(images, layers, SAMPLING)
    assert torch.equal(augmented, expected)
    assert augmented.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("policy", [name for name in POLICIES.kinds if name != "none"])
def test_ranks_and_micro_batches_see_the_images_of_the_global_batch(policy):
    augment = augmentation(policy)
    whole, _ = augment(batch(), epoch=2, step=1, first=BATCH)
    assert not torch.equal(whole, batch())
    parts = [augment(part.clone(), epoch=2, step=1, first=BATCH + 8 * k)[0] for k, part in enumerate(batch().split(8))]
    assert torch.equal(torch.cat(parts), whole)
    again, _ = augmentation(policy)(batch(), epoch=3, step=1, first=BATCH)
    assert not torch.equal(again, whole)


def test_a_shift_is_torchvisions_padding_and_random_crop():
    augment = augmentation("none")
    augment.policies = {Purpose.SHIFT: RandomShift(4)}
    images = batch()
    shifted, _ = augment(images.clone(), epoch=0, step=0, first=0)
    padded, found = torch.nn.functional.pad(images, (4, 4, 4, 4)), set()
    for image, moved in zip(padded, shifted, strict=True):
        places = [(y, x) for y in range(9) for x in range(9)]
        [place] = [p for p in places if torch.equal(image[:, p[0] : p[0] + SIDE, p[1] : p[1] + SIDE], moved)]
        found.add(place)
    assert len(found) > 20


def test_without_a_policy_the_pixels_stay_where_they_are():
    images = batch()
    augmented, mixture = augmentation("none")(images, epoch=0, step=0, first=0)
    assert augmented is images
    assert mixture is None
