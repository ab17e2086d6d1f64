"""Multinomial logistic regression with many strengths of L2 at once, in float64.

For every strength s the objective (1/n) sum_i CE(W x_i + b, y_i) + (s/2) |W|^2 is minimised by L-BFGS with its own
history and line search; the products with the features, which take the time, are made for all strengths together. In
the coordinates of the features' principal components, which L2 does not notice, a diagonal is a good first guess of
the curvature; the bias is free, so that the features can be centred.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Entries of logits that are computed at a time (float64: 128 MB).
_ENTRIES = 16_000_000
_HISTORY = 20
_SUFFICIENT = 1e-4
_MOST_HALVINGS = 40


@dataclass(frozen=True)
class Fit:
    """Of S strengths: ``weight [S, K, D]``, ``bias [S, K]`` (mean 0 over classes), ``objective [S]``, ``iterations``,
    and whether each ``converged [S]``.
    """

    weight: Tensor
    bias: Tensor
    objective: Tensor
    iterations: int
    converged: Tensor


class _Problem:
    """The objective in the coordinates of principal components: parameters [S, K, r + 1], the last column the bias."""

    def __init__(self, features: Tensor, labels: Tensor, num_classes: int, strengths: Tensor):
        n, self.width = features.shape
        self.labels, self.num_classes, self.strengths = labels, num_classes, strengths
        self.mean = features.mean(dim=0)
        centred = features - self.mean
        variance, axes = torch.linalg.eigh(centred.T @ centred / n)
        there = variance > 1e-12 * variance.amax().clamp_min(1e-300)  # Elsewhere W has no effect, and is 0.
        self.axes = axes[:, there]
        self.inputs = torch.cat([centred @ self.axes, features.new_ones(n, 1)], dim=1)
        penalised = features.new_ones(self.inputs.shape[1])
        penalised[-1] = 0
        self.penalised = penalised
        moment = torch.cat([variance[there], variance.new_ones(1)])
        p = 1 / num_classes
        self.inverse_curvature = 1 / (p * (1 - p) * moment + strengths[:, None] * penalised)  # [S, r + 1]

    def value(self, w: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Objective [S'] and gradient [S', K, r + 1] at ``w``, of the strengths ``active`` [S'] by number."""
        s, k, n = len(w), self.num_classes, len(self.inputs)
        flat = w.reshape(s * k, -1)
        total, gradient = w.new_zeros(s), torch.zeros_like(flat)
        step = max(1, _ENTRIES // (s * k))
        for first in range(0, n, step):
            x, y = self.inputs[first : first + step], self.labels[first : first + step]
            z = (x @ flat.T).view(len(x), s, k)
            norm = z.logsumexp(dim=2, keepdim=True)
            target = y[:, None, None].expand(-1, s, 1)
            total += (norm - z.gather(2, target)).sum(dim=(0, 2))
            p = z.sub_(norm).exp_()
            p.scatter_add_(2, target, p.new_full((), -1.0).expand(target.shape))
            gradient += p.view(len(x), s * k).T @ x
        penalty = self.strengths[active][:, None, None] * self.penalised * w
        value = total / n + 0.5 * (penalty * w).sum(dim=(1, 2))
        return value, gradient.view_as(w) / n + penalty


def fit(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    strengths: Sequence[float],
    *,
    tolerance: float = 1e-9,
    max_iterations: int = 2000,
) -> Fit:
    """Minimise the objective for all ``strengths``.

    Args:
        features: [N, D], computed with in float64 on their device.
        labels: [N] int64.
        num_classes: K.
        strengths: each > 0.
        tolerance: in nats, how far an objective may be from its minimum, estimated as half the squared gradient over
            the curvature.
        max_iterations: after so many steps it ends, ``converged`` or not.
    """
    scale = torch.tensor(list(strengths), dtype=torch.float64, device=features.device)
    problem = _Problem(features.double(), labels, num_classes, scale)
    shape = (len(scale), num_classes, problem.inputs.shape[1])
    w = scale.new_zeros(shape)
    active = torch.arange(len(scale), device=scale.device)
    value, gradient = problem.value(w, active)
    values = value.clone()
    converged = torch.zeros(len(scale), dtype=torch.bool, device=scale.device)
    history: list[tuple[Tensor, Tensor, Tensor]] = []  # steps, changes of the gradient, 1 / their product (0: none)
    iterations = 0
    for iterations in range(max_iterations + 1):
        curvature = problem.inverse_curvature[active][:, None, :]
        left = 0.5 * (gradient**2 * curvature).sum(dim=(1, 2))
        going = left > tolerance
        converged[active[~going]] = True
        if not going.all():
            active, value, gradient, curvature = active[going], value[going], gradient[going], curvature[going]
            history = [tuple(part[going] for part in entry) for entry in history]  # type: ignore[misc]
        if not len(active) or iterations == max_iterations:
            break
        direction = -_two_loops(gradient, history, curvature)
        slope = (direction * gradient).sum(dim=(1, 2))
        new_w, new_value, new_gradient = _line_search(problem, w[active], active, value, gradient, direction, slope)
        step, change = new_w - w[active], new_gradient - gradient
        product = (step * change).sum(dim=(1, 2))
        history = [*history[1 - _HISTORY :], (step, change, torch.where(product > 0, 1 / product, 0.0))]
        w[active], value, gradient = new_w, new_value, new_gradient
        values[active] = value
    bias = w[:, :, -1] - w[:, :, :-1] @ (problem.axes.T @ problem.mean)
    weight = w[:, :, :-1] @ problem.axes.T
    return Fit(weight, bias - bias.mean(dim=1, keepdim=True), values, iterations, converged)


def _two_loops(gradient: Tensor, history: list[tuple[Tensor, Tensor, Tensor]], curvature: Tensor) -> Tensor:
    """The inverse Hessian's estimate times the gradient, of each strength (Nocedal and Wright, algorithm 7.4)."""
    q, factors = gradient.clone(), []
    for step, change, inverse in reversed(history):
        factor = inverse * (step * q).sum(dim=(1, 2))
        factors.append(factor)
        q -= factor[:, None, None] * change
    q = q * curvature
    if history:  # The length of the first guess, as the last step has shown it.
        _, change, inverse = history[-1]
        length = inverse * (change**2 * curvature).sum(dim=(1, 2))
        q = q / torch.where(length > 0, length, 1.0)[:, None, None]
    for (step, change, inverse), factor in zip(history, reversed(factors), strict=True):
        q += (factor - inverse * (change * q).sum(dim=(1, 2)))[:, None, None] * step
    return q


def _line_search(
    problem: _Problem, w: Tensor, active: Tensor, value: Tensor, gradient: Tensor, direction: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The first of 1, 1/2, 1/4, ... of each direction at which the objective falls enough, and what is there."""
    new_w, new_value, new_gradient = w.clone(), value.clone(), gradient.clone()
    todo, length = torch.arange(len(w), device=w.device), 1.0
    for _ in range(_MOST_HALVINGS):
        trial = w[todo] + length * direction[todo]
        found, slope_there = problem.value(trial, active[todo])
        # The last term is what rounding may add.
        enough = found <= value[todo] + _SUFFICIENT * length * slope[todo] + 1e-15 * value[todo].abs()
        chosen = todo[enough]
        new_w[chosen], new_value[chosen], new_gradient[chosen] = trial[enough], found[enough], slope_there[enough]
        todo, length = todo[~enough], length / 2
        if not len(todo):
            break
    return new_w, new_value, new_gradient
