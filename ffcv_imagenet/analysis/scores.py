"""Scores of predicted probabilities in float64, from float32 logits, some thousand rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Rows that are computed at a time.
_ROWS = 4096
#: Inverse temperatures among which the best is looked for.
_INVERSE_TEMPERATURES = (1e-3, 1e3)


@dataclass(frozen=True)
class Predictions:
    """Of N images: ``confidence [N]`` of the predicted class, whether it is ``right [N]``, and per-image ``nll [N]`` in
    nats and ``brier [N]``, the squared distance between probabilities and the target's one-hot vector, 0 to 2.
    """

    confidence: np.ndarray
    right: np.ndarray
    nll: np.ndarray
    brier: np.ndarray


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities [B, K] of logits [B, K], in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True).astype(np.float64)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def blocks(rows: int) -> Iterator[slice]:
    """Slices that cover so many rows."""
    return (slice(first, first + _ROWS) for first in range(0, rows, _ROWS))


def predictions(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> Predictions:
    """What the softmax of ``logits / temperature`` predicts.

    Args:
        logits: [N, K].
        labels: [N] in 0..K-1.
        temperature: > 0.
    """
    parts = []
    for rows in blocks(len(labels)):
        logp, target = log_softmax(logits[rows] / np.float64(temperature)), labels[rows]
        p, n = np.exp(logp), np.arange(len(target))
        best = logits[rows].argmax(axis=1)
        brier = (p**2).sum(axis=1) - 2 * p[n, target] + 1
        parts.append((p[n, best], best == target, -logp[n, target], brier))
    return Predictions(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@dataclass(frozen=True)
class Bins:
    """Per bin: the number of images, their mean confidence and their accuracy (nan in an empty bin)."""

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error: mean over images of |accuracy - confidence| of their bin."""
        gap = np.abs(self.accuracy - self.confidence)
        return float(np.where(self.count > 0, gap * self.count, 0).sum() / self.count.sum())

    @property
    def mce(self) -> float:
        """Maximum calibration error: the largest |accuracy - confidence| of any bin."""
        return float(np.nanmax(np.abs(self.accuracy - self.confidence)))


def equal_width_bins(confidence: np.ndarray, right: np.ndarray, bins: int) -> Bins:
    """Bins (i/n, (i+1)/n] of the confidence; 0 lies in the first."""
    edges = np.arange(1, bins) / bins  # The same numbers as in (a, b]: an edge belongs to the bin below.
    return _bins(np.searchsorted(edges, confidence, side="left"), confidence, right, bins)


def equal_mass_bins(confidence: np.ndarray, right: np.ndarray, bins: int) -> Bins:
    """Bins of as equal a number of images as possible, in the order of their confidence."""
    order = np.argsort(confidence, kind="stable")
    where = np.empty(len(order), np.int64)
    for number, part in enumerate(np.array_split(order, bins)):
        where[part] = number
    return _bins(where, confidence, right, bins)


def _bins(where: np.ndarray, confidence: np.ndarray, right: np.ndarray, bins: int) -> Bins:
    count = np.bincount(where, minlength=bins)
    sums = (np.bincount(where, weights=values.astype(np.float64), minlength=bins) for values in (confidence, right))
    with np.errstate(invalid="ignore"):
        return Bins(count, *(total / count for total in sums))


def best_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of the least mean NLL; at an end of 0.001..1000 where it falls on and on.

    NLL is convex in the inverse temperature b, with the derivative mean(sum_k p_k z_k - z_y): its zero is found to the
    last digits.
    """
    from scipy.optimize import brentq  # takes a while to import

    def slope(log_inverse: float) -> float:
        inverse, total = np.exp(log_inverse), 0.0
        for rows in blocks(len(labels)):
            z = logits[rows].astype(np.float64)
            z -= z.max(axis=1, keepdims=True)
            p = np.exp(log_softmax(inverse * z))
            total += float(((p * z).sum(axis=1) - z[np.arange(len(z)), labels[rows]]).sum())
        return total / len(labels)

    low, high = np.log(_INVERSE_TEMPERATURES)
    if slope(low) >= 0:
        return float(np.exp(-low))
    if slope(high) <= 0:
        return float(np.exp(-high))
    return float(np.exp(-brentq(slope, low, high, xtol=1e-13, rtol=1e-13)))


def summarise(found: Predictions, bins: int) -> dict[str, Any]:
    """Accuracy, NLL (nats), Brier score, ECE over bins of equal width and of equal mass, and MCE."""
    wide = equal_width_bins(found.confidence, found.right, bins)
    return {
        "accuracy": float(found.right.mean()),
        "nll": float(found.nll.mean()),
        "brier": float(found.brier.mean()),
        "ece": wide.ece,
        "adaptive_ece": equal_mass_bins(found.confidence, found.right, bins).ece,
        "mce": wide.mce,
    }
