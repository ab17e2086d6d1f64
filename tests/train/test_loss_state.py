"""A loss with state: it is in checkpoints, and steps that do not count leave no trace in it."""

import dataclasses
from dataclasses import dataclass, field

import pytest
import torch
from memory_trainer import CLASSES, KeptCheckpoints, make_trainer
from toy_loss import Toy

from ffcv_imagenet.losses import LOSSES
from ffcv_imagenet.run.checkpoint import load_checkpoint
from ffcv_imagenet.train.loss_module import LossModule

STEPS, BATCH_SIZE = 4, 12


def losses_with_state():
    """Losses whose state a run has to keep: the toy with everything, one with sums, one re-weighted."""
    return {
        "toy": Toy(),
        "online_label_smoothing": LOSSES.choose("online_label_smoothing"),
        "zipf_label_smoothing": LOSSES.choose("zipf_label_smoothing", {"ranking": "logits"}),
        "ldam": LOSSES.choose("ldam", {"class_weights": "effective", "reweight_epoch": 1}),
    }


each_loss = pytest.mark.parametrize("loss", losses_with_state().values(), ids=losses_with_state())


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
    columns = trainer.loss.end_epoch()
    assert list(columns) == ["weight", "confidence", "top_logit", "target_logit", "confident_wrong"]
    assert columns["weight"] == pytest.approx(0.5 * (2 - 1 / STEPS))
    assert columns["confidence"] == confidence
    torch.testing.assert_close(trainer.loss.soft.sum(dim=1), torch.ones(CLASSES))
    assert not trainer.loss.predictions.any()
    assert not trainer.loss.images.any()


@pytest.mark.parametrize("loss", [Toy(), LOSSES.choose("online_label_smoothing")], ids=["toy", "ols"])
def test_a_warm_up_leaves_no_trace_in_the_loss(loss):
    trainer = trainer_of(loss, compile="aot_eager")
    trainer.train_epoch(0)
    before = state_of(trainer)
    trainer.warm_up()
    assert_equal(state_of(trainer), before)
    torch._dynamo.reset()


def breaking(kind):
    """A loss of this kind that is NaN in the second step, and notes the labels."""

    @dataclass(frozen=True)
    class Breaking(kind):
        seen: list = field(default_factory=list)

        def forward(self, state, outputs, target):
            self.seen.append(target)
            factor = float("nan") if len(self.seen) == 2 else 1
            outputs = outputs._replace(logits=outputs.logits * factor, log_p=outputs.log_p * factor)
            return super().forward(state, outputs, target)

    return Breaking()


def test_a_skipped_step_leaves_no_trace_in_the_loss():
    loss = breaking(Toy)
    trainer = trainer_of(loss, skip_nonfinite=True)
    trainer.train_epoch(0)
    others = torch.cat([target for step, target in enumerate(loss.seen) if step != 1])
    assert trainer.loss.images.tolist() == torch.bincount(others, minlength=CLASSES).tolist()
    assert all(value.isfinite().all() for value in trainer.loss.state.values())
    assert trainer.loss.num_images == (STEPS - 1) * BATCH_SIZE


@pytest.mark.parametrize("name", LOSSES.kinds)
def test_a_skipped_step_leaves_no_trace_in_any_loss(name):
    loss = breaking(LOSSES.kind(name))
    if loss.reads_local_classes:
        loss = dataclasses.replace(loss, ranking="logits")
    trainer = trainer_of(loss, skip_nonfinite=True)
    trainer.train_epoch(0)
    assert trainer.progress.losses.isfinite().tolist() == [True, False, True, True]
    assert all(value.isfinite().all() for value in trainer.loss.state.values())
    assert trainer.loss.num_images == (STEPS - 1) * BATCH_SIZE


@each_loss
def test_a_run_continued_in_the_middle_of_an_epoch_ends_the_same_to_the_last_bit(loss, tmp_path):
    whole = trainer_of(loss, checkpoint_steps=1)
    whole.fit(None, KeptCheckpoints(tmp_path, keep=1))
    for file in ("kept_epoch_0000_step_000002.pt", "kept_epoch_0001.pt", "kept_epoch_0001_step_000003.pt"):
        again = trainer_of(loss)
        again.load_state_dict(load_checkpoint(tmp_path / file))
        again.fit(None, None)
        assert_equal(state_of(again), state_of(whole))
        assert_equal(again.model.state_dict(), whole.model.state_dict())
        for one, other in zip(again.log, whole.log, strict=True):
            assert {k: v for k, v in one.items() if k.startswith("loss.")} == {
                k: v for k, v in other.items() if k.startswith("loss.")
            }
    assert len(whole.log) == 2


def test_a_checkpoint_from_before_a_loss_had_columns_can_be_continued():
    trainer = trainer_of(Toy())
    state = trainer.loss.state_over_ranks()
    del state["confidence"], state["num_images"], state["weight"]
    trainer.loss.load_state_over_ranks(state, is_main=True)
    assert trainer.loss.num_images == 0
    assert trainer.loss.weight == 0.5


def test_a_name_that_a_loss_uses_twice_is_told():
    @dataclass(frozen=True)
    class Twice(Toy):
        columns = ("images",)

    with pytest.raises(ValueError, match=r"Twice uses a name twice: .*images"):
        LossModule(Twice(), [1] * CLASSES, 1)
