"""``python -m ffcv_imagenet.report``."""

from ffcv_imagenet.options import run_script
from ffcv_imagenet.report.command import main

run_script(main)
