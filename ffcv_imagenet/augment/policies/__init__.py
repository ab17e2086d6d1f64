"""Which operations an image gets, and how strong: one file for each policy.

A policy of your own is a file here and a line in :data:`POLICIES`; options, help texts and defaults stand in the file.
Nothing here imports torch or numpy before a batch is drawn, so that ``--help``, sweep plans and reports do not wait.
"""

from ffcv_imagenet.augment.policies.autoaugment import AutoAugment
from ffcv_imagenet.augment.policies.policy import NoPolicy, Policy
from ffcv_imagenet.augment.policies.randaugment import RandAugment
from ffcv_imagenet.augment.policies.three_augment import ThreeAugment
from ffcv_imagenet.augment.policies.timm_randaugment import TimmRandAugment
from ffcv_imagenet.augment.policies.trivialaugment import TrivialAugment
from ffcv_imagenet.variants import Variants

#: All policies by ``augment.policy``.
POLICIES: Variants[Policy] = Variants(
    "augment.policy",
    {
        "none": NoPolicy,
        "randaugment": RandAugment,
        "timm_randaugment": TimmRandAugment,
        "trivialaugment": TrivialAugment,
        "autoaugment": AutoAugment,
        "three_augment": ThreeAugment,
    },
    base=Policy,
)

__all__ = ["POLICIES", "Policy"]
