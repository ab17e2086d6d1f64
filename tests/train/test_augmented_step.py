"""Training steps with augmentation: the loss is exact, and nothing but (seed, epoch, position) decides."""

import pytest
import torch
from memory_trainer import CLASSES, KeptCheckpoints, draw_batch, make_trainer

from ffcv_imagenet.augment.augmentation import Augmentation
from ffcv_imagenet.augment.draws import Purpose
from ffcv_imagenet.augment.erasing import Erasing
from ffcv_imagenet.augment.mixing import Mixing, mix_images, swap_neighbours
from ffcv_imagenet.augment.normalize import Normalize
from ffcv_imagenet.augment.policies import POLICIES
from ffcv_imagenet.augment.policies.sometimes import ColorJitter
from ffcv_imagenet.imagenet import IMAGENET_MEAN
from ffcv_imagenet.losses import LOSSES
from ffcv_imagenet.run.checkpoint import load_checkpoint

STEPS, BATCH_SIZE, EPOCHS, SIDE = 4, 8, 2, 32


def augmentation():
    mixing = Mixing(mixup=0.8, cutmix=1.0, prob=0.9, switch=0.5, first_unmixed=EPOCHS, seed=3)
    return Augmentation(
        policies={
            Purpose.POLICY: POLICIES.choose("timm_randaugment"),
            Purpose.JITTER: ColorJitter((0.3, 0.3, 0.3, 0.1)),
        },
        erasing=Erasing(0.5, "pixel", 2, seed=3),
        mixing=mixing,
        normalize=Normalize(),
        seed=3,
        mean=IMAGENET_MEAN,
        device=torch.device("cpu"),
    )


class DoubleNet(torch.nn.Sequential):
    """In float64, where another order of summing is no more than 1e-9."""

    def __init__(self):
        super().__init__(
            torch.nn.Conv2d(3, 6, 3, stride=4), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(6 * 64, CLASSES)
        )
        self.double()

    def forward(self, images):
        return super().forward(images.double())


def trainer_of(loss="maxsup", accumulation=1, **options):
    torch.manual_seed(7)
    return make_trainer(
        DoubleNet(),
        LOSSES.choose(loss),
        batches=STEPS * accumulation,
        batch_size=BATCH_SIZE // accumulation,
        augmentation=augmentation(),
        accumulation=accumulation,
        epochs=EPOCHS,
        **options,
    )


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def trained(**options):
    trainer = trainer_of(**options)
    trainer.warm_up()
    for epoch in range(EPOCHS):
        trainer.train_epoch(epoch)
        trainer.epochs_done, trainer.progress = epoch + 1, trainer._new_epoch()
    return weights(trainer)


def test_a_mixed_step_is_that_of_soft_targets():
    trainer = trainer_of("label_smoothing")
    images, labels, _ = draw_batch(0, BATCH_SIZE, SIDE)
    mixture = torch.tensor([0.3, 0.3, 0, 0, SIDE, SIDE])
    loss = trainer.step(images, labels, mixture)
    mixed = mix_images(trainer.step.module.normalize(images), mixture)
    one_hot = torch.nn.functional.one_hot(torch.stack([labels, swap_neighbours(labels)]), CLASSES).double()
    target = float(mixture[0]) * one_hot[0] + (1 - float(mixture[0])) * one_hot[1]
    expected = torch.nn.functional.cross_entropy(trainer.model(mixed), target, label_smoothing=0.1)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def test_an_interrupted_training_continues_bitwise(tmp_path):
    whole = trainer_of(checkpoint_steps=1)
    whole.fit(None, KeptCheckpoints(tmp_path, keep=1))
    again = trainer_of(checkpoint_steps=0)
    again.load_state_dict(load_checkpoint(tmp_path / "kept_epoch_0001_step_000002.pt"))
    again.fit(None, None)
    assert torch.equal(weights(again), weights(whole))
    assert [line["train_loss"] for line in again.log] == [line["train_loss"] for line in whole.log]


def test_micro_batches_take_the_steps_of_the_whole_batch():
    trainer, expected = trainer_of(accumulation=4), trainer_of()
    trainer.train_loader, expected.train_loader = _Parts(4), _Parts(1)
    for each in (trainer, expected):
        each.train_epoch(0)
    torch.testing.assert_close(weights(trainer), weights(expected), rtol=1e-9, atol=1e-11)


class _Parts:
    """The same batches in one or more parts."""

    def __init__(self, parts):
        self.parts, self.batch_size = parts, BATCH_SIZE // parts

    def epoch(self, epoch, resolution, first_batch=0):
        for step in range(STEPS):
            batch = draw_batch(step, BATCH_SIZE, resolution)
            yield from (batch._replace(images=i, labels=t) for i, t in zip(*self._split(batch), strict=True))

    def _split(self, batch):
        return batch.images.split(self.batch_size), batch.labels.split(self.batch_size)


@pytest.mark.parametrize("options", [{}, {"accumulation": 2, "ema": 0.9, "skip_nonfinite": True}])
def test_compiled_steps_are_the_eager_ones(options):
    compiled = trained(compile="aot_eager", **options)
    torch.testing.assert_close(compiled, trained(**options), rtol=1e-9, atol=1e-11)
    torch._dynamo.reset()
