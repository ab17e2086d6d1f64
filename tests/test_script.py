"""What every command does with its output and its environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ffcv_imagenet.script import to_paste

ROOT = Path(__file__).parent.parent
#: A command that prints more than a buffer holds, and says on stderr and in a file that it has come to its end.
COMMAND = """
import sys
from pathlib import Path
from ffcv_imagenet.script import run_script

def main(argv):
    for _ in range(3000):
        print("a line of output", flush=True)
    print("not flushed")
    file = open(argv[0], "w")
    print("to the end", file=sys.stderr)
    file.write(f"number {file.fileno()}")

run_script(main)
"""


def run(file, redirections):
    """The exit status of the command under a shell's redirections, and what it wrote on stderr."""
    words = ["bash", "-c", f'"$0" "$@" {redirections}', sys.executable, "-c", COMMAND, str(file)]
    result = subprocess.run(words, stderr=subprocess.PIPE, cwd=ROOT, text=True, timeout=60)
    return result.returncode, result.stderr


@pytest.mark.parametrize("redirections", [">/dev/full", "> >(exec true)", ">&-"])
def test_a_line_that_cannot_be_printed_is_left_out(tmp_path, redirections):
    assert run(tmp_path / "file", redirections) == (0, "to the end\n")
    assert (tmp_path / "file").exists()


@pytest.mark.parametrize("redirections", ["2>/dev/full", "2>&-", "0<&- >&- 2>&-"])
def test_nor_is_stderr_needed_and_no_file_takes_its_number(tmp_path, redirections):
    assert run(tmp_path / "file", f">/dev/null {redirections}") == (0, "")
    assert int((tmp_path / "file").read_text().removeprefix("number ")) > 2


@pytest.mark.parametrize(("given", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_the_package_says_how_threads_wait_before_torch_is_imported(given, policy):
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    if given is not None:
        environment["OMP_WAIT_POLICY"] = given
    code = "import os, sys, ffcv_imagenet; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, env=environment, cwd=ROOT, text=True).split() == [policy, "False"]


def test_an_error_of_the_system_is_its_file_and_its_reason(tmp_path):
    file = tmp_path / "nowhere" / "file"
    assert run(file, ">/dev/null") == (2, f"error: {file}: No such file or directory\n")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("lr.lr: got 2, allowed is lr.max=1 (lr.lr from a)", "--lr.lr: got 2, allowed is --lr.max=1 (lr.lr from a)"),
        ("give --data.val=FILE, got data.val=/a/lr.lr=3", "give --data.val=FILE, got --data.val=/a/lr.lr=3"),
        ("an option: data.num_workers=2 and a.b.c=1", "an option: --data.num_workers=2 and a.b.c=1"),
    ],
)
def test_options_in_a_message_can_be_pasted(message, shown):
    assert to_paste(message) == shown
