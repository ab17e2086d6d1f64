import os
import signal
import subprocess
import sys

import pytest

from ffcv_imagenet.run.lock import hold, is_active


def test_one_holder_at_a_time(tmp_path):
    run = tmp_path / "runs" / "run"
    assert not is_active(run)
    with hold(run):
        assert is_active(run)
        with pytest.raises(BlockingIOError, match=r"runs/run: another process is writing this run"), hold(run):
            pass
        assert is_active(run)
    assert not is_active(run)
    with hold(run):
        pass


def test_a_killed_holder_leaves_nothing_behind(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from ffcv_imagenet.run.lock import hold\n"
        "with hold(Path(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    assert is_active(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not is_active(tmp_path)
    with hold(tmp_path):
        assert is_active(tmp_path)
