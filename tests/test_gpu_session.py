"""The session on a GPU machine: what is done, stopped, left out and taken along.

A small program stands in for Python, and so for what the parts do.
"""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "gpu_session.sh"


@pytest.fixture
def session(tmp_path):
    """Runs a session whose program acts as the shell code ``acts`` says; ``$*`` there are the program's arguments."""
    (tmp_path / "images" / "a").mkdir(parents=True)
    program = tmp_path / "python"

    def run(*words, acts="", deadline=1000):
        program.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\n{acts}\nexit 0\n')
        program.chmod(0o755)
        folders = [word for name in ("images", "work", "out") for word in (f"--{name}", tmp_path / name)]
        command = [SCRIPT, *folders, "--device", "cpu", "--deadline", str(deadline), *words]
        environment = {**os.environ, "PYTHON": str(program)}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)

    return run


def outcomes(tmp_path):
    rows = (tmp_path / "out" / "parts.md").read_text().splitlines()[2:]
    return {cells[1]: cells[2] for cells in (row.split(" | ") for row in (f" | {row[2:]}" for row in rows))}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "nowhere"], "--images: got 'nowhere', allowed is a folder"),
        (["--deadline", "soon"], "--deadline: got soon, allowed is a number of seconds"),
        (["step", "tape"], "tape is no part, allowed are preflight decode_tests "),
    ],
)
def test_a_mistake_is_one_line(session, tmp_path, words, message):
    done = session(*words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "calls").exists()


def test_what_is_done_is_not_done_again_and_what_has_failed_is(session, tmp_path):
    parts = ("preflight", "decode", "step")
    first = session(*parts, acts='case "$*" in *train_speed*) echo "out of memory"; exit 3;; esac')
    assert first.returncode == 1
    assert "out of memory" in first.stdout
    assert outcomes(tmp_path) == {"preflight": "done", "decode": "done", "step": "**failed**, status 3"}
    assert session(*parts).returncode == 0
    assert outcomes(tmp_path) == dict.fromkeys(parts, "done")
    programs = [line.split()[0] for line in (tmp_path / "calls").read_text().splitlines()]
    tried = ["benchmarks/preflight.py", "benchmarks/gpu_decode.py", "benchmarks/train_speed.py"]
    assert programs == [*tried, tried[0], tried[2]]


def test_a_machine_that_lacks_something_ends_the_session(session, tmp_path):
    done = session(acts='case "$*" in *preflight*) echo "missing: numba"; exit 1;; esac')
    assert done.returncode == 2
    assert "missing: numba" in done.stdout
    assert len((tmp_path / "calls").read_text().splitlines()) == 1


def test_nothing_goes_on_after_the_deadline(session, tmp_path):
    table = tmp_path / "work" / "tables" / "decode.md"
    done = session("decode", "step", acts=f"echo measured > {table}; sleep 60", deadline=2)
    assert done.returncode == 1
    assert outcomes(tmp_path)["decode"] == "stopped at its limit"
    assert outcomes(tmp_path)["step"].startswith("left out: ")
    assert "measured" in (tmp_path / "out" / "tables.md").read_text()


def test_what_is_taken_along_is_few_files_and_gives_the_caches_to_the_next(session, tmp_path):
    cached = tmp_path / "work" / "caches" / "inductor" / "code"
    assert session("step", acts=f"mkdir -p {cached.parent}; head -c 17000000 /dev/urandom > {cached}").returncode == 0
    files = sorted((tmp_path / "out").iterdir())
    names = [file.name for file in files]
    assert names == ["caches.tar.gz.0", "caches.tar.gz.1", "parts.md", "session.log", "tables.md"]
    assert all(file.stat().st_size <= 16 << 20 for file in files)
    content = cached.read_bytes()
    (tmp_path / "work").rename(tmp_path / "before")
    (tmp_path / "out").rename(tmp_path / "brought")
    assert session("--caches", str(tmp_path / "brought"), "step").returncode == 0
    assert cached.read_bytes() == content
