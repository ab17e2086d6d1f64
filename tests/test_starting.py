"""What each command imports: a package that takes seconds of CPU only where it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest
from images import draw_folder
from run_folders import make_run

ROOT = Path(__file__).parent.parent

#: Runs a command, and prints on stdout, last, the packages that it has imported.
WATCH = """
import runpy, sys
sys.argv = sys.argv[1:]
run = runpy.run_path if sys.argv[0].endswith(".py") else runpy.run_module
try:
    run(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
print("\\n", *{name.split(".")[0] for name in sys.modules})
"""


def imported(*words):
    """The packages that ``python WORDS`` imports; it must succeed."""
    command = [sys.executable, "-c", WATCH, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "command",
    [
        "train_imagenet.py",
        "write_datasets.py",
        "ffcv_imagenet.sweep",
        "ffcv_imagenet.report",
        "ffcv_imagenet.analysis",
        "ffcv_imagenet.predict",
        "ffcv_imagenet.export",
        "ffcv_imagenet.watch",
        "ffcv_imagenet.doctor",
        "ffcv_imagenet.data.index",
        "ffcv_imagenet.data.verify",
        "ffcv_imagenet.data.digits",
    ],
)
def test_the_help_of_a_command_imports_nothing_large(command):
    large = {"torch", "torchvision", "numba", "ffcv", "pandas", "scipy", "cv2", "PIL", "matplotlib", "rich", "sklearn"}
    assert imported(command, "--help") & large == set()


def test_data_sets_are_written_indexed_and_verified_without_torch_numba_and_ffcv(tmp_path):
    heavy = {"torch", "torchvision", "numba", "ffcv", "pandas", "scipy", "matplotlib"}
    root = draw_folder(tmp_path / "images", train=1, val=1, classes=("cat",))
    written = imported("write_datasets.py", f"--data.root={root}", f"--out.dir={tmp_path}", "--write.splits=train")
    assert written & heavy == set()
    for command in ("index", "verify"):
        assert imported(f"ffcv_imagenet.data.{command}", tmp_path / "train.beton") & heavy == set()


def test_a_report_is_made_without_torch_numba_and_ffcv(tmp_path):
    for loss in ("baseline", "maxsup"):
        for seed in (0, 1):
            make_run(tmp_path, f"{loss}{seed}", loss, seed, top_1=(0.1, 0.2, 0.4, 0.3 + seed / 100))
    heavy = {"torch", "torchvision", "numba", "ffcv", "cv2", "matplotlib"}
    assert imported("ffcv_imagenet.report", tmp_path, "--html", tmp_path / "page.html") & heavy == set()


def test_runs_are_watched_without_torch_numba_and_ffcv(tmp_path):
    make_run(tmp_path, "run", "maxsup", 0, top_1=(0.1, 0.2))
    heavy = {"torch", "torchvision", "numba", "ffcv", "cv2", "matplotlib", "scipy"}
    assert imported("ffcv_imagenet.watch", tmp_path, "--once", f"--html={tmp_path / 'page.html'}") & heavy == set()


def test_a_sweep_is_planned_without_numba_and_ffcv(digits, tmp_path):
    words = [f"--runs={tmp_path}", f"--data.train={digits / 'train.beton'}", f"--data.val={digits / 'val.beton'}"]
    words += ["--sweep.loss=baseline,maxsup", "--model.arch=resnet10", "--training.batch_size=32", "--dist.device=cpu"]
    assert imported("ffcv_imagenet.sweep", *words, "--dry-run") & {"numba", "ffcv", "cv2", "rich"} == set()
