"""Trained networks that the tests of the analysis measure: made once per session, never changed."""

from pathlib import Path

import pytest

import train_imagenet


@pytest.fixture(scope="session")
def runs(digits, tmp_path_factory) -> Path:
    """A folder with the runs ``baseline`` and ``maxsup``: resnet10 at 32 pixels, one epoch on the digits 0, 1, 2."""
    folder = tmp_path_factory.mktemp("runs")
    words = [f"--data.train={digits / 'train.beton'}", f"--data.val={digits / 'val.beton'}", "--training.epochs=1"]
    words += ["--model.arch=resnet10", "--training.batch_size=32", "--lr.base_batch=32", "--lr.lr=0.1"]
    words += ["--resolution.min_res=32", "--resolution.max_res=32", "--validation.resolution=32", "--data.flip=0"]
    words += ["--validation.batch_size=8", "--dist.device=cpu", "--dist.cpu_threads=1", f"--logging.folder={folder}"]
    for loss in ("baseline", "maxsup"):
        train_imagenet.main([*words, f"--loss.name={loss}", f"--logging.name={loss}"])
    return folder
