"""Several gloo processes take the step that one process takes on the global batch."""

import os
import shutil

import pytest
import torch
from memory_trainer import CLASSES, make_trainer
from torch import nn

from ffcv_imagenet.distributed import World
from ffcv_imagenet.losses import make_loss

#: With and without micro-batches, eager and compiled.
CASES = [(1, "off"), (3, "off"), (1, "aot_eager"), (3, "aot_eager")]
STEPS, GLOBAL_BATCH = 3, 24


class DoubleNet(nn.Sequential):
    """In float64, and without batch normalisation, whose statistics are those of a process's own images."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 6, 3, stride=4), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 64, CLASSES))
        self.double()

    def forward(self, images):
        return super().forward(images.double())


def take_steps(world, accumulation, compile):
    """Weights before and after steps of plain gradient descent with rate 1: their difference is the gradients' sum."""
    torch.manual_seed(0)
    trainer = make_trainer(
        DoubleNet(),
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
    trainer.train_epoch(0, None)
    weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    return weights


def _rank(rank, size, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    world = World(rank, size, rank, size, torch.device("cpu"))
    results = [take_steps(world, accumulation, mode) for accumulation, mode in CASES]
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(_rank, (2, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", range(len(CASES)), ids=str)
def test_gradients_are_those_of_the_global_batch(two_ranks, case):
    accumulation, _ = CASES[case]
    before, after = take_steps(World(0, 1, 0, 1, torch.device("cpu")), accumulation, "off")
    assert (after - before).abs().max() > 0.01
    for results in two_ranks:
        torch.testing.assert_close(results[case][0], before, rtol=0, atol=0)
        torch.testing.assert_close(results[case][1], after, rtol=1e-9, atol=1e-11)


def _compiling_rank(rank, size, folder):
    """Compile for real, as all ranks of a machine do at once, with one cache."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/cache"
    torch._inductor.config.compile_threads = 1
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    torch.save(take_steps(World(rank, size, rank, size, torch.device("cpu")), 1, "default"), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_four_processes_compile_into_one_cache(tmp_path):
    torch.multiprocessing.spawn(_compiling_rank, (4, tmp_path), nprocs=4)
    before, after = take_steps(World(0, 1, 0, 1, torch.device("cpu")), 1, "off")
    for rank in range(4):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(results[0], before, rtol=0, atol=0)
        torch.testing.assert_close(results[1], after, rtol=1e-9, atol=1e-11)
    assert any((tmp_path / "cache").iterdir())
