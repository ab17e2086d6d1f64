"""Train ResNets on ImageNet from FFCV files, once per loss, and compare the losses."""

__version__ = "0.1.0"
