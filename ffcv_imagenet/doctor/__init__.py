"""Why a training is as fast as it is: the machine, what each part reaches, and which of them is the limit.

    python -m ffcv_imagenet.doctor [--config-file RECIPE --data.train=FILE ...] [--json]

:mod:`~ffcv_imagenet.doctor.verdict` judges numbers; the other modules measure them.
"""
