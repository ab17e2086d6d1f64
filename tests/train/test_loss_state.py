"""A loss with state: it is in checkpoints, and steps that do not count leave no trace in it."""

from dataclasses import dataclass, field

import pytest
import torch
from memory_trainer import CLASSES, KeptCheckpoints, make_trainer
from toy_loss import Toy

from ffcv_imagenet.run.checkpoint import load_checkpoint
from ffcv_imagenet.train.loss_module import LossModule

STEPS, BATCH_SIZE = 4, 12


def trainer_of(loss, **options):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3, stride=4), torch.nn.Flatten(), torch.nn.Linear(384, CLASSES))
    accumulation = options.get("accumulation", 1)
    return make_trainer(model, loss, batches=STEPS * accumulation, batch_size=BATCH_SIZE // accumulation, **options)


def state_of(trainer):
    return {name: value.clone() for name, value in trainer.loss.state.items()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=0, atol=0, msg=lambda text, key=key: f"{key}: {text}")


def test_every_image_of_an_epoch_counts_once_and_the_next_epoch_uses_it():
    trainer = trainer_of(Toy(), epochs=1, accumulation=2)
    trainer.train_epoch(0)
    assert trainer.loss.images.sum() == STEPS * BATCH_SIZE
    mean = trainer.loss.predictions.sum(dim=1) / trainer.loss.images
    assert mean[trainer.loss.images > 0] == pytest.approx(1)
    confidence = trainer.loss.confidence.item() / (STEPS * BATCH_SIZE)
    assert trainer.loss.end_epoch() == {"weight": pytest.approx(0.5 * (2 - 1 / STEPS)), "confidence": confidence}
    torch.testing.assert_close(trainer.loss.soft.sum(dim=1), torch.ones(CLASSES))
    assert not trainer.loss.predictions.any()
    assert not trainer.loss.images.any()


def test_a_warm_up_leaves_no_trace_in_the_loss():
    trainer = trainer_of(Toy(), compile="aot_eager")
    trainer.train_epoch(0)
    before = state_of(trainer)
    trainer.warm_up()
    assert_equal(state_of(trainer), before)
    torch._dynamo.reset()


@dataclass(frozen=True)
class Breaking(Toy):
    """NaN in the second step."""

    seen: list = field(default_factory=list)

    def forward(self, state, logits, target):
        self.seen.append(target)
        return super().forward(state, logits * (float("nan") if len(self.seen) == 2 else 1), target)


def test_a_skipped_step_leaves_no_trace_in_the_loss():
    loss = Breaking()
    trainer = trainer_of(loss, skip_nonfinite=True)
    trainer.train_epoch(0)
    others = torch.cat([target for step, target in enumerate(loss.seen) if step != 1])
    assert trainer.loss.images.tolist() == torch.bincount(others, minlength=CLASSES).tolist()
    assert all(value.isfinite().all() for value in trainer.loss.state.values())
    assert trainer.loss.num_images == (STEPS - 1) * BATCH_SIZE


def test_a_run_continued_in_the_middle_of_an_epoch_ends_the_same_to_the_last_bit(tmp_path):
    whole = trainer_of(Toy(), checkpoint_steps=1)
    whole.fit(None, KeptCheckpoints(tmp_path, keep=1))
    for file in ("kept_epoch_0000_step_000002.pt", "kept_epoch_0001.pt", "kept_epoch_0001_step_000003.pt"):
        again = trainer_of(Toy())
        again.load_state_dict(load_checkpoint(tmp_path / file))
        again.fit(None, None)
        assert_equal(state_of(again), state_of(whole))
        assert_equal(again.model.state_dict(), whole.model.state_dict())
        for one, other in zip(again.log, whole.log, strict=True):
            assert {k: v for k, v in one.items() if k.startswith("loss.")} == {
                k: v for k, v in other.items() if k.startswith("loss.")
            }
    assert whole.log[0]["loss.confidence"] < 1


def test_a_checkpoint_from_before_a_loss_had_columns_can_be_continued():
    trainer = trainer_of(Toy())
    state = trainer.loss.state_over_ranks()
    del state["confidence"], state["num_images"]
    trainer.loss.load_state_over_ranks(state, is_main=True)
    assert trainer.loss.num_images == 0


def test_a_name_that_a_loss_uses_twice_is_told():
    @dataclass(frozen=True)
    class Twice(Toy):
        columns = ("images",)

    with pytest.raises(ValueError, match=r"Twice uses a name twice: .*images"):
        LossModule(Twice(), CLASSES)
