"""The losses that are compared, one file each.

A loss of your own is a file here and a line in :data:`LOSSES`: options, help texts, defaults and formula stand in the
file; the command line, sweeps and the report take them from there. Or it stays outside, as
``--loss.name=package.module:Class``. See :class:`~ffcv_imagenet.losses.loss.Loss` for what a loss is.

Nothing here imports torch before a loss is computed, so that ``--help``, sweep plans and reports do not wait for it.
"""

from ffcv_imagenet.losses.baseline import Baseline
from ffcv_imagenet.losses.label_smoothing import LabelSmoothing
from ffcv_imagenet.losses.loss import Loss
from ffcv_imagenet.losses.maxsup import MaxSup
from ffcv_imagenet.variants import Variants

#: All losses by ``loss.name``, in the order in which tables and charts show them.
LOSSES: Variants[Loss] = Variants(
    "loss.name",
    {
        "baseline": Baseline,
        "label_smoothing": LabelSmoothing,
        "maxsup": MaxSup,
    },
    base=Loss,
)

__all__ = ["LOSSES", "Loss"]
