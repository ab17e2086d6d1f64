"""How far work is: by a clock that the test winds, on a stderr that is a terminal or not."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from ffcv_imagenet.progress import BAR_SECONDS, LINE_SECONDS, Progress


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock():
    return Clock()


def run(progress, clock, steps, seconds, **options):
    """So many steps of one part that take so many seconds each."""
    with progress:
        for _ in range(steps):
            clock.now += seconds
            progress.update(**options)


def test_elsewhere_than_on_a_terminal_a_line_every_minute_tells_the_rate_and_the_time_left(clock, capsys):
    run(Progress("writing train", 1000, "images", clock=clock), clock, 100, 2.0)
    assert capsys.readouterr().err.splitlines() == [
        "writing train: 30 of 1000 images, 0.5 a second, 32 min left",
        "writing train: 60 of 1000 images, 0.5 a second, 31 min left",
        "writing train: 90 of 1000 images, 0.5 a second, 30 min left",
    ]


def test_what_is_done_within_a_minute_gets_no_line(clock, capsys):
    run(Progress("a", 59, "images", clock=clock), clock, 59, 1.0)
    assert capsys.readouterr().err == ""


def test_parts_that_were_done_before_do_not_count_for_the_rate(clock, capsys):
    run(Progress("epoch 2/3", 500, "steps", done=400, clock=clock), clock, 1, 60.0, parts=60, note="loss 1.5")
    assert capsys.readouterr().err == "epoch 2/3: 460 of 500 steps, 1 a second, 40 s left, loss 1.5\n"


def test_without_a_total_there_is_no_time_left_to_tell(clock, capsys):
    run(Progress("fit", None, "iterations", clock=clock), clock, 2, 40.0)
    assert capsys.readouterr().err == "fit: 2 iterations, 0.025 a second\n"


def test_before_the_first_part_is_done_no_time_left_is_made_up(clock, capsys):
    run(Progress("a", 5, "images", clock=clock), clock, 1, 61.0, parts=0)
    assert capsys.readouterr().err == "a: 0 of 5 images, 0 a second\n"


def test_a_terminal_gets_a_bar_that_is_taken_away_at_the_end(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("naught\x1b[2J", 10, "images", clock=clock) as progress:
        progress.update(4)
        assert "4/10" not in terminal.getvalue()
        clock.now += BAR_SECONDS
        progress.update(1, "loss 1.5")
        assert "5/10" in terminal.getvalue()
        assert "loss 1.5" in terminal.getvalue()
        progress.say("a line")
    assert "a line\n" in terminal.getvalue()
    assert "\x1b[2J" not in terminal.getvalue()
    assert terminal.getvalue().rstrip(" ").endswith("\r")


def test_hidden_progress_shows_nothing_and_is_never_due(clock, capsys):
    progress = Progress("a", 10, "images", hidden=True, clock=clock)
    clock.now += 10 * LINE_SECONDS
    assert not progress.is_due()
    progress.say("a line")
    assert list(progress.over("abc", 2)) == ["a", "b", "c"]
    assert (progress.done, capsys.readouterr()) == (6, ("", ""))


@pytest.mark.parametrize(("ends", "status"), [("true", 0), ("exit 3", 3)])
def test_an_installation_outside_a_terminal_tells_that_it_is_at_work(tmp_path, ends, status):
    script = Path(__file__).parent.parent / "scripts" / "progress.sh"
    # The work ends when it has been told twice that it is at work.
    (tmp_path / "work").write_text(f"until [ $(grep -c 'at work' err) -ge 2 ]; do sleep 0.1; done; {ends}")
    (tmp_path / "err").touch()
    command = ["bash", "-euc", f"source {script}; with_progress bash work 2>err"]
    environment = {"PROGRESS_SECONDS": "0.1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, timeout=60)
    assert done.returncode == status
    line = (tmp_path / "err").read_text().splitlines()[0]
    assert line.endswith(" s: 0 MB in .venv, 0 MB more than 0.1 s before")


def test_the_progress_of_an_installation_that_is_killed_ends(tmp_path):
    script = Path(__file__).parent.parent / "scripts" / "progress.sh"
    (running := tmp_path / "running").touch()
    work = "exec 2>&-; while [ -e running ]; do sleep 0.1; done"
    command = ["bash", "-c", f"source {script}; with_progress bash -c '{work}'; true"]
    environment = {"PROGRESS_SECONDS": "0.1", "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as shell:
        assert "still at work" in shell.stderr.readline()
        shell.kill()
        shell.wait()
        running.unlink()
        shell.communicate(timeout=30)  # to its end: nobody has it open any more
