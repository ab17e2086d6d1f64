"""``python -m ffcv_imagenet.doctor``."""

from ffcv_imagenet.doctor.command import main
from ffcv_imagenet.script import run_script

if __name__ == "__main__":  # The processes that average gradients import it again.
    run_script(main)
