"""FFCV is imported the cheap way before a test module here imports it."""

import ffcv_imagenet.data.ffcv_imports  # noqa: F401
