"""``pip install .`` from a clean clone installs the whole package."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_a_wheel_has_every_file_of_the_package(tmp_path):
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    clone, built = tmp_path / "clone", tmp_path / "built"
    for name in tracked:
        if name.startswith("ffcv_imagenet/") or "/" not in name:
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    # The step of a wheel's build that collects the files; the others compile the extension, and pack.
    command = [sys.executable, "setup.py", "-q", "build_py", f"--build-lib={built}"]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    packed = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}
    assert packed == {name for name in tracked if name.startswith("ffcv_imagenet/")}
