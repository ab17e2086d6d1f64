"""What happens to a training batch on the training device, between the decoder and the model.

:class:`~ffcv_imagenet.augment.augmentation.Augmentation` applies it. All random numbers come from
:mod:`~ffcv_imagenet.augment.draws`: they depend on (seed, epoch, position) alone, are drawn on the host, a batch at a
time, and are handed over with the batch.
"""
