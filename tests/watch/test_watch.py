"""The watch: how runs stand, from their folders alone; the table, the lines and the page."""

import fcntl
import json
import os
import platform
import time
import urllib.request
from html.parser import HTMLParser

import pytest
from rich.console import Console
from run_folders import epoch_line, make_run

from ffcv_imagenet.report.runs import load_run
from ffcv_imagenet.run.lock import hold
from ffcv_imagenet.watch.command import main
from ffcv_imagenet.watch.page import MOST_DRAWN, render_page
from ffcv_imagenet.watch.server import serve
from ffcv_imagenet.watch.standings import Watcher, run_state, seconds_left, summary
from ffcv_imagenet.watch.table import cells, line, table

NASTY = "<b>[red]&amp;"
HERE = {"host": platform.node()}


def with_host(folder, host):
    file = folder / "params.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hardware": {"host": host}}))


def standing(*folders):
    [found] = Watcher(folders).look()
    return found


def test_a_run_is_running_while_a_process_holds_it_and_killed_when_that_is_gone(tmp_path):
    folder = make_run(tmp_path, "run", top_1=(0.1, 0.2), state="running")
    with_host(folder, platform.node())
    with hold(folder):
        assert standing(tmp_path).state == "running"
    found = standing(tmp_path)
    assert (found.state, found.seconds_left) == ("killed", None)


def test_top_1_is_that_of_the_last_epoch_that_has_one(tmp_path):
    make_run(tmp_path, "run", top_1=(0.3, 0.2, None), state="running")
    assert cells(standing(tmp_path))[:3] == ["3/4", "20.00", "30.00"]


def test_a_run_of_another_machine_is_silent_when_its_log_has_not_changed_for_three_epochs(tmp_path):
    folder = make_run(tmp_path, "run", top_1=(0.1, 0.2), state="running")  # 60 s per epoch
    with_host(folder, "node17")
    run = load_run(folder)
    assert run_state(run, changed=0.0, now=599.0) == ("running", "on node17")
    assert run_state(run, changed=0.0, now=660.0) == ("silent", "for 11 min, on node17")
    slow = "".join(epoch_line(n, 0.1).replace('"total_seconds": ', '"total_seconds": 10') for n in (1, 2))  # 1060 s
    (folder / "log.jsonl").write_text(slow)
    assert run_state(load_run(folder), changed=0.0, now=150.0)[0] == "running"


@pytest.mark.parametrize(
    ("state", "top_1", "expected"),
    [
        ("finished", (0.1, 0.2, 0.4, 0.3), ("finished", "")),
        ("failed", (0.1,), ("failed", "the loss is NaN")),
        ("interrupted", (0.1,), ("interrupted", "")),
        (None, (0.1,), ("unknown", "no status.json")),
    ],
)
def test_other_states_are_those_of_the_status(tmp_path, state, top_1, expected):
    make_run(tmp_path, "run", top_1=top_1, state=state, error="the loss\nis NaN" if state == "failed" else None)
    found = standing(tmp_path)
    assert (found.state, found.detail) == expected


def test_an_interrupted_run_that_begins_again_is_starting(tmp_path):
    folder = make_run(tmp_path, "run", top_1=(0.1,), state="interrupted")
    with hold(folder):
        assert (standing(tmp_path).state, standing(tmp_path).detail) == ("starting", "again")


def test_what_a_sweep_has_just_started_is_starting_and_failed_when_its_processes_are_gone(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "output.txt").write_text("error: data.train is required\n")
    with (folder / "output.txt").open("ab") as output:
        fcntl.flock(output, fcntl.LOCK_EX)
        assert standing(tmp_path).state == "starting"
    found = standing(tmp_path)
    assert (found.state, found.detail) == ("failed", "before it began: error: data.train is required")


def test_a_damaged_run_is_named_and_the_others_are_shown(tmp_path):
    make_run(tmp_path, "good")
    (make_run(tmp_path, "bad") / "log.jsonl").write_text("{]\n{}\n")
    bad, good = Watcher([tmp_path]).look()
    assert (bad.name, bad.state, good.name, good.state) == ("bad", "damaged", "good", "finished")
    assert "log.jsonl, line 1 is not valid JSON" in bad.detail


def test_a_look_sees_new_epochs_and_new_runs_and_reads_nothing_twice(tmp_path, monkeypatch):
    watcher = Watcher([tmp_path])
    assert watcher.look() == []
    assert summary([]) == "no run yet"
    folder = make_run(tmp_path, "run", top_1=(0.1,), state=None)
    read = []
    monkeypatch.setattr("ffcv_imagenet.watch.standings.load_run", lambda f: read.append(f) or load_run(f))
    assert [s.run.epochs_done for s in (*watcher.look(), *watcher.look())] == [1, 1]
    assert len(read) == 1
    (folder / "log.jsonl").write_text(epoch_line(1, 0.1) + epoch_line(2, 0.2))
    assert watcher.look()[0].run.epochs_done == 2


def test_the_time_left_follows_the_plan_of_image_sizes(tmp_path):
    plan = {"resolution__min_res": 128, "resolution__max_res": 192, "resolution__start_ramp": 2}
    plan |= {"resolution__end_ramp": 3, "training__epochs": 5}

    def run_with(*seconds_and_sides):
        total, lines = 0.0, ""
        for epoch, (seconds, side) in enumerate(seconds_and_sides, start=1):
            total += seconds
            lines += (
                json.dumps(json.loads(epoch_line(epoch, 0.1)) | {"total_seconds": total, "resolution": side}) + "\n"
            )
        return load_run(make_run(tmp_path, str(len(list(tmp_path.iterdir()))), log=lines, state="running", **plan))

    assert seconds_left(run_with()) is None
    # The first epoch has the start in it. Epochs 0 to 2 have 128 px, the two after them 192.
    begun = run_with((100.0, 128), (40.0, 128))
    assert seconds_left(begun) == pytest.approx(40 + 2 * 40 * (192 / 128) ** 2)
    assert seconds_left(begun, in_epoch=10.0) == pytest.approx(30 + 2 * 40 * (192 / 128) ** 2)
    assert seconds_left(begun, in_epoch=1e9) == pytest.approx(2 * 40 * (192 / 128) ** 2)
    # One of 192 px has been timed: it counts.
    assert seconds_left(run_with((100.0, 128), (40.0, 128), (40.0, 128), (70.0, 192))) == pytest.approx(70)
    assert seconds_left(run_with(*[(40.0, 128)] * 5)) == 0.0


def test_lines_and_table_say_the_same_and_names_are_no_markup(tmp_path):
    make_run(tmp_path, "done")
    failed = make_run(tmp_path, f"x{NASTY}\x1b", top_1=(0.5, 0.25), state="failed", error="out of memory " * 9)
    standings = Watcher([tmp_path]).look()
    assert line(standings[0]) == ("done: finished, epoch 4/4, top-1 30.00 % (best 40.00 %), 1000 images/s, waited 0 %")
    assert line(standings[1]).startswith(f"x{NASTY}\\x1b: failed: {'out of memory ' * 9}".strip())
    console = Console(width=150, force_terminal=False)
    with console.capture() as capture:
        console.print(table(standings, rows=10, width=150))
    text = capture.get()
    assert f"x{NASTY}\\x1b" in text
    assert "25.00" in text
    assert "2 runs: 1 failed, 1 finished" in text
    with console.capture() as capture:
        console.print(table(standings, rows=1, width=150))
    assert "done" not in capture.get()
    assert "1 not shown" in capture.get()
    assert failed.name  # the one that failed is the one that stays


class Tags(HTMLParser):
    """Fails where a tag is not closed in the order of opening; keeps the text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text = [], ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_refreshes_itself_escapes_names_and_draws_the_latest_runs(tmp_path):
    for number in range(MOST_DRAWN + 2):
        folder = make_run(tmp_path, f"run{number:02d}", seed=number)
        for file in folder.iterdir():
            os.utime(file, (number, number))
    (tmp_path / "run00").rename(tmp_path / NASTY)
    html = render_page(Watcher([tmp_path]).look(), 10)
    page = Tags(html)
    assert '<meta http-equiv="refresh" content="10">' in html
    assert "<script" not in html
    assert NASTY not in html
    assert NASTY in page.text
    assert "Not drawn: 2 runs that changed longer ago." in page.text
    legend = page.text.partition("Curves")[2]
    assert "run02" in legend
    assert "run01" not in legend
    assert html.count("<figure>") == 5
    assert "no run yet" in render_page([], 10)


def test_the_page_is_served_on_this_machine_only(tmp_path):
    make_run(tmp_path, "run")
    with serve(0, Watcher([tmp_path]), 10) as port:
        answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read().decode()
        assert "run" in Tags(answer).text
        with (
            pytest.raises(OSError, match=f"port {port} cannot be listened on: Address already in use"),
            serve(port, Watcher([tmp_path]), 10),
        ):
            pass


def test_once_prints_a_line_per_run_and_writes_the_page(tmp_path, capsys):
    make_run(tmp_path / "runs", "run")
    main([str(tmp_path / "runs"), "--once", f"--html={tmp_path / 'page.html'}"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"page: {tmp_path / 'page.html'}"
    assert printed[1].startswith("run: finished, epoch 4/4")
    assert printed[2] == "1 run: 1 finished"
    Tags((tmp_path / "page.html").read_text())


def test_without_a_terminal_a_line_tells_each_change_until_ctrl_c(tmp_path, capsys, monkeypatch):
    folder = make_run(tmp_path, "run", top_1=(0.1,), state=None)
    looks = iter([lambda: None, lambda: (folder / "log.jsonl").write_text(epoch_line(1, 0.1) + epoch_line(2, 0.2))])

    def sleep(seconds):
        change = next(looks, None)
        if change is None:
            raise KeyboardInterrupt
        change()

    monkeypatch.setattr(time, "sleep", sleep)
    main([str(tmp_path)])
    lines = [text.partition(" ")[2] for text in capsys.readouterr().out.splitlines()]
    assert [text.partition("epoch ")[2][:3] for text in lines] == ["1/4", "2/4"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "folder not found: nowhere"),
        (["--once", "--html=8000"], r"--once: got --html=8000, a page that is served; allowed is --html=FILE"),
        (["--html=70000"], r"--html: got port 70000, allowed are 1 to 65535"),
        (["--html=nowhere/page.html", "--once"], "folder not found: nowhere"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises((ValueError, OSError), match=message):
        main(words)
