"""Two gloo processes take the step that one process takes on the global batch."""

import pytest
import torch
from memory_trainer import CLASSES, make_trainer
from torch import nn

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.distributed import World
from ffcv_imagenet.experiment import make_train_loader
from ffcv_imagenet.losses import make_loss
from ffcv_imagenet.options import build

#: With and without micro-batches, eager and compiled.
CASES = [(1, "off"), (3, "off"), (1, "aot_eager"), (3, "aot_eager")]
STEPS, GLOBAL_BATCH = 3, 24


class DoubleNet(nn.Sequential):
    """In float64, where another order of summing is no more than 1e-9."""

    def __init__(self, classes, *normalisation):
        super().__init__(
            nn.Conv2d(3, 6, 3, stride=4), *normalisation, nn.Tanh(), nn.Flatten(), nn.Linear(6 * 64, classes)
        )
        self.double()

    def forward(self, images):
        return super().forward(images.double())


def take_steps(world, accumulation, compile):
    """Weights before and after steps of plain gradient descent with rate 1: their difference is the gradients' sum."""
    torch.manual_seed(0)
    trainer = make_trainer(
        DoubleNet(CLASSES),  # Statistics of batch normalisation are those of a process's own images.
        make_loss("maxsup"),
        batches=STEPS * accumulation,
        batch_size=GLOBAL_BATCH // world.size // accumulation,
        momentum=0.0,
        weight_decay=0.0,
        world=world,
        accumulation=accumulation,
        compile=compile,
        lr=lambda epoch: 1.0,
    )
    trainer.warm_up()
    weights = [torch.cat([p.detach().flatten() for p in trainer.model.parameters()])]
    trainer.train_epoch(0)
    weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    return weights


def take_steps_on_images(digits, world, accumulation):
    """Weights after an epoch on real images, of which each micro-batch is normalised by itself."""
    values = {
        "data.train": digits / "train.beton",
        "data.val": digits / "val.beton",
        "data.num_workers": 1,
        "resolution.min_res": 32,
        "training.batch_size": GLOBAL_BATCH,
        "training.accumulation": accumulation,
    }
    config = build(TrainConfig, {key: str(value) for key, value in values.items()})
    torch.manual_seed(0)
    trainer = make_trainer(
        DoubleNet(3, nn.BatchNorm2d(6)),
        make_loss("maxsup"),
        batches=0,
        batch_size=GLOBAL_BATCH // world.size // accumulation,
        train_loader=make_train_loader(config, world),
        world=world,
        accumulation=accumulation,
    )
    weights = [torch.cat([p.detach().flatten() for p in trainer.model.parameters()])]
    trainer.train_epoch(0)
    weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    return weights


def _rank(rank, size, folder, digits):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    world = World(rank, size, rank, size, torch.device("cpu"))
    results = [take_steps(world, accumulation, mode) for accumulation, mode in CASES]
    results.append(take_steps_on_images(digits, world, 2))
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(_rank, (2, folder, digits), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", range(len(CASES)), ids=str)
def test_gradients_are_those_of_the_global_batch(two_ranks, case):
    accumulation, _ = CASES[case]
    before, after = take_steps(World(0, 1, 0, 1, torch.device("cpu")), accumulation, "off")
    assert (after - before).abs().max() > 0.01
    for results in two_ranks:
        torch.testing.assert_close(results[case][0], before, rtol=0, atol=0)
        torch.testing.assert_close(results[case][1], after, rtol=1e-9, atol=1e-11)


def test_the_same_micro_batches_on_one_process_take_the_same_steps(two_ranks, digits):
    # Two processes with two micro-batches each, or one with four: the same six images in each of the four.
    before, after = take_steps_on_images(digits, World(0, 1, 0, 1, torch.device("cpu")), 4)
    assert (after - before).abs().max() > 0.01
    for results in two_ranks:
        torch.testing.assert_close(results[-1][0], before, rtol=0, atol=0)
        torch.testing.assert_close(results[-1][1], after, rtol=1e-9, atol=1e-9)
