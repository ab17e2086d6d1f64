"""``python -m ffcv_imagenet.report``."""

from ffcv_imagenet.report.command import main
from ffcv_imagenet.script import run_script

run_script(main)
