"""``python -m ffcv_imagenet.watch``."""

from ffcv_imagenet.script import run_script
from ffcv_imagenet.watch.command import main

run_script(main)
