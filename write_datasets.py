"""``python -m ffcv_imagenet.write`` from the source: images to FFCV's .beton files."""

from ffcv_imagenet.script import run_script
from ffcv_imagenet.write import main

if __name__ == "__main__":
    run_script(main)
