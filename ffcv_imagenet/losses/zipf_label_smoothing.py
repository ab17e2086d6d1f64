"""Zipf's label smoothing: the other classes' probabilities are pulled to Zipf's law by rank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffcv_imagenet.losses.cross_entropy import CrossEntropyLoss
from ffcv_imagenet.losses.loss import Outputs
from ffcv_imagenet.options import Choice, Real, option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ZipfLabelSmoothing(CrossEntropyLoss):
    """Cross entropy ``+ weight * KL(P || Q)`` over the classes c other than y.

    Liang et al., "Efficient One Pass Self-distillation with Zipf's Label Smoothing", arXiv 2207.12980. Q is the softmax
    without y; ``P_c ~ rank_c ^ -power``, with no gradient. The ranks: (``dense``, the paper's) the model's head
    classifies every location of the last feature map; a class's rank is 1 + the number of classes with more of these
    votes, so that all classes without a vote share one rank. (``logits``, for models without a map) by the logits of
    the image, which takes a sort. Either way y is ranked, too, and then left out. ``weight`` is 0.1 for ImageNet and
    CIFAR-100 there, 1 for TinyImageNet and iNaturalist. The column ``penalty`` is ``KL(P || Q)``.
    """

    columns = ("penalty",)

    weight: float = option(Real(0), "weight of the divergence from Zipf's law", 0.1)
    power: float = option(Real(0), "exponent of Zipf's law", 1.0)
    ranking: str = option(
        Choice("dense", "logits"), "rank classes by votes of the feature map's locations, or by the logits", "dense"
    )

    @property
    def linear_in_target(self) -> bool:
        """No: the law leaves one class out."""
        return False

    @property
    def reads_local_classes(self) -> bool:
        """See :attr:`Loss.reads_local_classes`."""
        return self.ranking == "dense"

    def scheduled(self, epoch: float, epochs: int) -> dict[str, float]:
        """See :meth:`Loss.scheduled`."""
        return {"weight": self.weight} | super().scheduled(epoch, epochs)

    def forward(self, state: Mapping[str, Tensor], outputs: Outputs, target: Tensor) -> Tensor:
        """See :meth:`Loss.forward`."""
        import torch

        from ffcv_imagenet.losses.gradient import with_gradient

        logits, log_p, own = outputs.logits.detach(), outputs.log_p.detach(), target[:, None]
        law = self._by_rank(outputs).scatter_(1, own, 0.0)
        law /= law.sum(dim=1, keepdim=True)
        # Not minus infinity, which times a probability of 0 would be NaN.
        log_q = logits.scatter(1, own, torch.finfo(logits.dtype).min / 2).log_softmax(dim=1)
        penalty = law.scatter(1, own, 1.0).log_().sub_(log_q).mul_(law).sum()
        state["penalty"].add_(penalty)
        loss = self.cross_entropy(state, log_p, target) + self.weight * (penalty / len(target))
        gradient = self.gradient_(state, log_p.exp(), target).add_(log_q.exp_().sub_(law), alpha=self.weight)
        return with_gradient(outputs.logits, loss, gradient)

    def _by_rank(self, outputs: Outputs) -> Tensor:
        """``rank_c ^ -power`` [B, K]."""
        import torch

        logits = outputs.logits.detach()
        if self.reads_local_classes:
            assert outputs.local_classes is not None
            return _powers_of_ranks(outputs.local_classes, logits, self.power)
        ranks = torch.arange(1, logits.shape[1] + 1, dtype=logits.dtype, device=logits.device)
        order = logits.argsort(dim=1, descending=True, stable=True)
        return torch.empty_like(logits).scatter_(1, order, (ranks**-self.power).expand_as(logits))


def _powers_of_ranks(local_classes: Tensor, like: Tensor, power: float) -> Tensor:
    """``rank_c ^ -power`` of the classes by their votes, for votes [B, L] int64, shaped and typed like ``like`` [B, K].

    Apart from two fills of [B, K], all is of the size of the votes: no more than L classes have any.
    """
    import torch

    size, locations = local_classes.shape
    one = torch.ones_like(local_classes, dtype=torch.int32)
    votes = torch.zeros_like(like, dtype=torch.int32).scatter_add_(1, local_classes, one)
    votes = votes.gather(1, local_classes).long()  # of each location's class
    # How many locations have a class with v votes: v times the number of such classes.
    count = votes.new_zeros((size, locations + 1)).scatter_add_(1, votes, torch.ones_like(votes))
    classes = count // torch.arange(locations + 1, device=count.device).clamp(min=1)
    with_as_many_or_more = classes.flip(1).cumsum(1).flip(1)
    rank = 1 + (with_as_many_or_more - classes).gather(1, votes)
    without_votes = 1 + with_as_many_or_more[:, :1]
    powers = (without_votes.to(like.dtype) ** -power).repeat(1, like.shape[1])
    return powers.scatter_(1, local_classes, rank.to(like.dtype) ** -power)
