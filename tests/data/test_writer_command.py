"""write_datasets.py as it is called."""

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from images import draw_folder
from writing import names

from ffcv_imagenet.data.write.parameters import PRESETS

REPOSITORY = Path(__file__).parents[2]

SCRIPT = REPOSITORY / "write_datasets.py"


@pytest.fixture
def command(monkeypatch, capsys):
    """Run write_datasets.py in this process (importing torch once more takes seconds)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        captured = capsys.readouterr()
        return exit.value.code, captured.out, captured.err

    return run


def test_command_writes_both_splits(tmp_path, pets):
    words = [sys.executable, SCRIPT, f"--data.root={pets}", f"--out.dir={tmp_path}/a/b", "--write.num_workers=1"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines.pop(0).endswith("format folder: train has 24 images in 2 classes, val has 6 images in 2 classes")
    assert len(lines) == 2
    pattern = r"train: 24 images, 2 classes, [\d.]+ MB, [\d.]+ s, \d+ images/s, .*/a/b/train\.beton"
    assert re.fullmatch(pattern, lines[0])
    assert lines[1].startswith("val: 6 images")
    assert not done.stderr  # outside of a terminal a line comes after a minute
    assert json.loads((tmp_path / "a/b/val.beton.json").read_text())["parameters"]["mode"] == "jpg"


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def group_exists(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


#: The command on a file system that does not answer for one file, which is not one from which the size is estimated.
UNANSWERED = """
import runpy, sys, time
from ffcv_imagenet.data.sources import folder
read = folder.read_file
folder.read_file = lambda path: time.sleep(1000) if path.endswith("cat/004.png") else read(path)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_ctrl_c_stops_at_once_and_cleans_up(tmp_path):
    root = draw_folder(tmp_path / "root", train=40)
    words = [sys.executable, "-c", UNANSWERED, SCRIPT, f"--data.root={root}", f"--out.dir={tmp_path}/out"]
    process = subprocess.Popen(words, start_new_session=True, stderr=subprocess.PIPE)
    try:
        wait_until((tmp_path / "out/train.beton.partial").exists)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        process.communicate(timeout=10)
        assert process.returncode not in (0, 2)
        assert names(tmp_path / "out") == []
        wait_until(lambda: not group_exists(process.pid))
    finally:
        if group_exists(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def test_command_help_names_every_option(command):
    status, out, _ = command("--help")
    assert status == 0
    for name in ("data.root", "out.dir", "write.preset", "write.mode", "write.overwrite", "write.page_size_mib"):
        assert f"--{name}" in out
    for preset in PRESETS:
        assert preset in out


def test_command_names_a_broken_file_and_leaves_nothing(tmp_path, command):
    root = draw_folder(tmp_path / "root", extension=".jpg")
    broken = root / "train/dog/002.jpg"
    broken.write_bytes(broken.read_bytes()[:-100])
    status, out, error = command(f"--data.root={root}", f"--out.dir={tmp_path}/out", "--write.num_workers=2")
    assert (status, out.count("\n")) == (2, 1)
    assert error.splitlines()[-1].startswith(f"error: cannot store {broken}: image file is truncated")
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("argument", "start"),
    [
        ("--write.mode=png", "error: --write.mode: got 'png'"),
        ("--write.subset=1000", "error: --write.subset: got 1000"),
        ("--write.page_size_mib=3", "error: --write.page_size_mib: got 3"),
        ("--write.smart_threshold=3", "error: --write.smart_threshold: got 3.0"),
        ("--data.root=/nowhere", "error: images not found: /nowhere"),
    ],
)
def test_command_rejects_mistakes(tmp_path, pets, command, argument, start):
    status, _, error = command(f"--data.root={pets}", f"--out.dir={tmp_path}/out", argument)
    assert status == 2
    assert error.startswith(start)
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
