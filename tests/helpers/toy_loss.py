"""A loss with everything that a loss can have: an option, a scheduled number, state, sums and a column."""

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy, one_hot

from ffcv_imagenet.losses import Loss
from ffcv_imagenet.options import Real, option


@dataclass(frozen=True)
class Toy(Loss):
    """Cross entropy, and that with the mean prediction for each class in the epoch before."""

    columns = ("confidence",)

    strength: float = option(Real(0, 1), "weight of the soft targets", 0.5)

    def scheduled(self, epoch, epochs):
        return {"weight": self.strength * (1 + epoch / epochs)}

    def state(self, images_per_class):
        num_classes = len(images_per_class)
        return {"soft": torch.full((num_classes, num_classes), 1 / num_classes)}

    def sums(self, num_classes):
        shape = (num_classes, num_classes)
        return {"predictions": torch.zeros(shape, dtype=torch.float64), "images": torch.zeros(num_classes)}

    def forward(self, state, outputs, target):
        logits = outputs.logits
        probabilities = logits.detach().softmax(dim=1).double()
        onehot = one_hot(target, logits.shape[1]).double()
        state["predictions"].add_(onehot.T @ probabilities)
        state["images"].add_(onehot.sum(dim=0))
        state["confidence"].add_(probabilities.max(dim=1).values.sum())
        soft = state["soft"][target].to(logits.dtype)
        return cross_entropy(logits, target) + state["weight"] * cross_entropy(logits, soft)

    def end_epoch(self, state):
        images = state["images"][:, None]
        uniform = torch.full_like(state["soft"], 1 / len(images))
        state["soft"].copy_(torch.where(images > 0, state["predictions"] / images, uniform))
