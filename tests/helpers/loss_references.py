"""Every loss of an image once more, from its formula, in numpy and float64."""

import numpy as np
from scipy.special import expit, log_softmax, softmax
from scipy.stats import rankdata


def smoothed_parts(z, q):
    """``z_y - z_k`` for all k, of each class y, weighted by its share of the target."""
    lead = z[:, None] - z[None, :]
    return (q[:, None] * lead.clip(min=0)).sum() / len(z), (q[:, None] * lead.clip(max=0)).sum() / len(z)


def zipf(z, y, votes, power):
    """The divergence of the other classes' softmax from Zipf's law; ``votes`` are classes, or None to rank by z."""
    count = z if votes is None else np.bincount(votes, minlength=len(z))
    others = np.arange(len(z)) != y
    law = rankdata(-count, "min")[others] ** -float(power)
    law /= law.sum()
    return (law * (np.log(law) - log_softmax(z[others]))).sum()


def margin_logits(z, y, counts, scale, largest):
    margins = np.asarray(counts) ** -0.25
    moved = z.copy()
    moved[y] -= scale * largest * margins[y] / margins.max()
    return moved


def loss_of_image(name, z, q, *, options, weight=1.0, smoothing=None, alpha=None, soft=None, votes=None, counts=None):
    """The loss of logits ``z [K]`` for the target ``q [K]``; ``weight`` is the class weight of its cross entropy."""
    log_p, p, y = log_softmax(z), softmax(z), int(q.argmax())
    cross_entropy = -weight * (q * log_p).sum()
    match name:
        case "baseline":
            return cross_entropy
        case "label_smoothing":
            return -weight * (((1 - smoothing) * q + smoothing / len(z)) * log_p).sum()
        case "maxsup":
            return cross_entropy + alpha * (z.max() - z.mean())
        case "logit_penalty":
            return cross_entropy + options.get("beta", 2e-3) / 2 * (z**2).sum()
        case "online_label_smoothing":
            hard = options.get("hard_weight", 0.5)
            return hard * cross_entropy - (1 - hard) * weight * (soft[y] * log_p).sum()
        case "zipf_label_smoothing":
            return cross_entropy + options.get("weight", 0.1) * zipf(z, y, votes, options.get("power", 1.0))
        case "focal":
            return -weight * (q * (1 - p) ** options.get("gamma", 2.0) * log_p).sum()
        case "confidence_penalty":
            return cross_entropy + options.get("beta", 0.1) * (p * log_p).sum()
        case "ls_regularization_only":
            return cross_entropy + smoothing * smoothed_parts(z, q)[0]
        case "ls_error_amplification_only":
            return cross_entropy + smoothing * smoothed_parts(z, q)[1]
        case "bce":
            return -(q * np.log(expit(z)) + (1 - q) * np.log(expit(-z))).sum()
        case "ldam":
            moved = margin_logits(z, y, counts, options.get("scale", 30.0), options.get("max_margin", 0.5))
            return -weight * log_softmax(moved)[y]
    raise AssertionError(f"no formula for {name}")
