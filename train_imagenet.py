"""``python -m ffcv_imagenet.train`` from the source: train a network on .beton files, or evaluate one."""

from ffcv_imagenet.script import run_script
from ffcv_imagenet.train.__main__ import main

if __name__ == "__main__":
    run_script(main)
