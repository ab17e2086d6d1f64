"""``python -m ffcv_imagenet.analysis``."""

from ffcv_imagenet.analysis.command import main
from ffcv_imagenet.script import run_script

run_script(main)
