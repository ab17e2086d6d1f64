"""The losses that are compared, one file each.

A loss of your own is a file here and a line in :data:`LOSSES`: options, help texts, defaults and formula stand in the
file; the command line, sweeps and the report take them from there. Or it stays outside, as
``--loss.name=package.module:Class``. See :class:`~ffcv_imagenet.losses.loss.Loss` for what a loss is.

Nothing here imports torch before a loss is computed, so that ``--help``, sweep plans and reports do not wait for it.
"""

from ffcv_imagenet.losses.baseline import Baseline
from ffcv_imagenet.losses.bce import BinaryCrossEntropy
from ffcv_imagenet.losses.confidence_penalty import ConfidencePenalty
from ffcv_imagenet.losses.cross_entropy import CrossEntropyLoss
from ffcv_imagenet.losses.focal import Focal
from ffcv_imagenet.losses.label_smoothing import LabelSmoothing
from ffcv_imagenet.losses.ldam import LDAM
from ffcv_imagenet.losses.logit_penalty import LogitPenalty
from ffcv_imagenet.losses.loss import Loss, Outputs
from ffcv_imagenet.losses.maxsup import MaxSup
from ffcv_imagenet.losses.online_label_smoothing import OnlineLabelSmoothing
from ffcv_imagenet.losses.smoothing_parts import ErrorAmplificationOnly, RegularizationOnly
from ffcv_imagenet.losses.zipf_label_smoothing import ZipfLabelSmoothing
from ffcv_imagenet.variants import Variants

#: All losses by ``loss.name``, in the order in which tables and charts show them.
LOSSES: Variants[Loss] = Variants(
    "loss.name",
    {
        "baseline": Baseline,
        "label_smoothing": LabelSmoothing,
        "maxsup": MaxSup,
        "logit_penalty": LogitPenalty,
        "online_label_smoothing": OnlineLabelSmoothing,
        "zipf_label_smoothing": ZipfLabelSmoothing,
        "focal": Focal,
        "confidence_penalty": ConfidencePenalty,
        "ls_regularization_only": RegularizationOnly,
        "ls_error_amplification_only": ErrorAmplificationOnly,
        "bce": BinaryCrossEntropy,
        "ldam": LDAM,
    },
    base=Loss,
)

__all__ = ["LOSSES", "CrossEntropyLoss", "Loss", "Outputs"]
