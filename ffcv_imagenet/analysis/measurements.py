"""The measurements by name; the order is that of help texts and of ``all``."""

from __future__ import annotations

from ffcv_imagenet.analysis.calibration import Calibration
from ffcv_imagenet.analysis.corruptions import Corruptions
from ffcv_imagenet.analysis.features import Features
from ffcv_imagenet.analysis.gradcam import GradCam
from ffcv_imagenet.analysis.groups import Groups
from ffcv_imagenet.analysis.logits import Logits
from ffcv_imagenet.analysis.measurement import Measurement
from ffcv_imagenet.analysis.plane import Plane
from ffcv_imagenet.analysis.transfer import Transfer
from ffcv_imagenet.variants import Variants

MEASUREMENTS: Variants[Measurement] = Variants(
    "measurement",
    {
        "features": Features,
        "transfer": Transfer,
        "logits": Logits,
        "calibration": Calibration,
        "corruptions": Corruptions,
        "plane": Plane,
        "groups": Groups,
        "gradcam": GradCam,
    },
)
