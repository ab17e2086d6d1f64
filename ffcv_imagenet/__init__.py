"""Train ResNets on ImageNet from FFCV files, once per loss, and compare the losses."""

import os

__version__ = "0.1.0"

# For torch's OpenMP library, which reads it when it is loaded: threads sleep while they wait for each other. By default
# they spin, and where other processes use the cores too, a training then takes several times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
