"""Measurements on trained networks: features, logits, calibration, transfer, corruptions, pictures.

    python -m ffcv_imagenet.analysis NAME --run runs/a [--run runs/b ...] --data val.beton [--train-data train.beton]
    python -m ffcv_imagenet.analysis NAME --weights FILE --arch ARCH --data val.beton

One file per measurement, listed in :mod:`~ffcv_imagenet.analysis.measurements`. A run goes this way:
:mod:`~ffcv_imagenet.analysis.subject` loads a run folder or a file of weights; :mod:`~ffcv_imagenet.analysis.outputs`
passes images through it once and keeps what the measurements need; a measurement makes numbers of that;
:mod:`~ffcv_imagenet.analysis.results` writes them as JSON, CSV and SVG.
"""
