"""Several gloo processes take the step that one process takes on the global batch."""

import os
import shutil

import pytest
import torch
from memory_trainer import CLASSES, KeptCheckpoints, make_trainer
from processes import start_processes
from torch import nn
from toy_loss import Toy

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.distributed import World
from ffcv_imagenet.loaders import make_train_loader
from ffcv_imagenet.losses import LOSSES
from ffcv_imagenet.options import build
from ffcv_imagenet.resolved import resolve
from ffcv_imagenet.run.checkpoint import load_checkpoint

#: With and without micro-batches, eager and compiled.
CASES = [(1, "off"), (3, "off"), (1, "aot_eager"), (3, "aot_eager")]
STEPS, GLOBAL_BATCH = 3, 24
#: Every loss, and the one with everything that a loss can have; the network here has no map of features.
OPTIONS = {
    "zipf_label_smoothing": {"ranking": "logits"},
    "ldam": {"class_weights": "effective", "reweight_epoch": 1},
    "baseline": {"class_weights": "inverse"},
}
KEPT = ("toy", "online_label_smoothing")
LOSSES_TOLD = {"toy": Toy()} | {name: LOSSES.choose(name, OPTIONS.get(name)) for name in LOSSES.kinds}
#: Those whose sums over an epoch are in float32.
ROUNDED = {"online_label_smoothing": {"rtol": 2e-6, "atol": 1e-7}}


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
        LOSSES.choose("maxsup"),
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


#: Options of an augmentation with everything in it.
AUGMENTED = {
    "augment.policy": "timm_randaugment",
    "augment.color_jitter": "0.3,0.3,0.3,0",
    "augment.erasing": 0.5,
    "augment.mixup": 0.8,
    "augment.cutmix": 1,
    "data.repeats": 3,
}


def take_steps_on_images(digits, world, accumulation, **options):
    """Weights after an epoch on real images, of which each micro-batch is normalised by itself."""
    values = {
        "data.train": digits / "train.beton",
        "data.val": digits / "val.beton",
        "data.num_workers": 1,
        "resolution.min_res": 32,
        "training.batch_size": GLOBAL_BATCH,
        "training.accumulation": accumulation,
        **options,
    }
    config = build(TrainConfig, {key: str(value) for key, value in values.items()})
    start = resolve(config, world)
    torch.manual_seed(0)
    trainer = make_trainer(
        DoubleNet(3, nn.BatchNorm2d(6)),
        LOSSES.choose("maxsup"),
        batches=0,
        batch_size=GLOBAL_BATCH // world.size // accumulation,
        train_loader=make_train_loader(start),
        augmentation=start.make_augmentation(),
        world=world,
        accumulation=accumulation,
    )
    weights = [torch.cat([p.detach().flatten() for p in trainer.model.parameters()])]
    trainer.train_epoch(0)
    weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    return weights


def train_with_state(world, loss, folder=None, resume=None):
    """Two epochs, in which a loss may learn from the first; checkpoints after every step, with all ranks' sums."""
    torch.manual_seed(0)
    batch_size, options = GLOBAL_BATCH // world.size, {"checkpoint_steps": 1, "lr": lambda epoch: 0.1}
    trainer = make_trainer(DoubleNet(CLASSES), loss, batches=STEPS, batch_size=batch_size, world=world, **options)
    if resume is not None:
        trainer.load_state_dict(load_checkpoint(resume))
    trainer.fit(None, KeptCheckpoints(folder, keep=1) if folder is not None and world.is_main else None)
    of_loss = {key: value for line in trainer.log for key, value in line.items() if key.startswith("loss.")}
    return {**trainer.model.state_dict(), **trainer.loss.state, "columns": of_loss}


def _rank(rank, size, folder, digits):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    world = World(rank, size, rank, size, torch.device("cpu"))
    results = [take_steps(world, accumulation, mode) for accumulation, mode in CASES]
    results.append(take_steps_on_images(digits, world, 2))
    augmented = take_steps_on_images(digits, world, 2, **AUGMENTED)
    for name, loss in LOSSES_TOLD.items():
        results.append(train_with_state(world, loss, folder / name if name in KEPT else None))
    torch.save([*results, augmented], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    start_processes(_rank, (2, folder, digits), 2)
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("case", range(len(CASES)), ids=str)
def test_gradients_are_those_of_the_global_batch(two_ranks, case):
    accumulation, _ = CASES[case]
    before, after = take_steps(World(0, 1, 0, 1, torch.device("cpu")), accumulation, "off")
    assert (after - before).abs().max() > 0.01
    for results in two_ranks[1]:
        torch.testing.assert_close(results[case][0], before, rtol=0, atol=0)
        torch.testing.assert_close(results[case][1], after, rtol=1e-9, atol=1e-11)


def test_the_same_micro_batches_on_one_process_take_the_same_steps(two_ranks, digits):
    # Two processes with two micro-batches each, or one with four: the same six images in each of the four.
    before, after = take_steps_on_images(digits, World(0, 1, 0, 1, torch.device("cpu")), 4)
    assert (after - before).abs().max() > 0.01
    for results in two_ranks[1]:
        torch.testing.assert_close(results[len(CASES)][0], before, rtol=0, atol=0)
        torch.testing.assert_close(results[len(CASES)][1], after, rtol=1e-9, atol=1e-9)


def test_two_processes_augment_as_one(two_ranks, digits):
    before, after = take_steps_on_images(digits, World(0, 1, 0, 1, torch.device("cpu")), 4, **AUGMENTED)
    _, plain = take_steps_on_images(digits, World(0, 1, 0, 1, torch.device("cpu")), 4)
    assert (after - plain).abs().max() > 0.01
    for results in two_ranks[1]:
        torch.testing.assert_close(results[-1][0], before, rtol=0, atol=0)
        torch.testing.assert_close(results[-1][1], after, rtol=1e-9, atol=1e-9)


def assert_close(state, expected, name):
    tolerance = ROUNDED.get(name, {"rtol": 1e-9, "atol": 1e-11})
    columns = state["columns"], expected["columns"]
    assert columns[0] == pytest.approx(columns[1], rel=tolerance["rtol"], abs=tolerance["atol"])
    for key in expected.keys() - {"columns"}:
        torch.testing.assert_close(state[key], expected[key], **tolerance)


def alone(name, folder=None, resume=None):
    return train_with_state(World(0, 1, 0, 1, torch.device("cpu")), LOSSES_TOLD[name], folder, resume)


@pytest.mark.parametrize("name", LOSSES_TOLD)
def test_what_a_loss_does_and_learns_is_what_one_process_makes_of_all_images(two_ranks, name):
    expected = alone(name)
    for results in two_ranks[1]:
        assert_close(results[len(CASES) + 1 + list(LOSSES_TOLD).index(name)], expected, name)
    assert {"loss.top_logit", "loss.target_logit", "loss.confident_wrong"} <= set(expected["columns"])


@pytest.mark.parametrize("name", KEPT)
def test_a_checkpoint_in_the_middle_of_an_epoch_is_right_for_another_number_of_processes(two_ranks, name, tmp_path):
    file = two_ranks[0] / name / "kept_epoch_0001_step_000002.pt"
    assert_close(alone(name, tmp_path, file), alone(name), name)


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
    start_processes(_compiling_rank, (4, tmp_path), 4)
    before, after = take_steps(World(0, 1, 0, 1, torch.device("cpu")), 1, "off")
    for rank in range(4):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(results[0], before, rtol=0, atol=0)
        torch.testing.assert_close(results[1], after, rtol=1e-9, atol=1e-11)
    assert any((tmp_path / "cache").iterdir())
