"""The report on run folders built by hand: figures against numpy, what is averaged, errors, files, plot."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from run_folders import EPOCHS, epoch_line, make_run, read_runs

from ffcv_imagenet.report import main
from ffcv_imagenet.report.figure import plot
from ffcv_imagenet.report.groups import LOSS_ORDER, group_runs
from ffcv_imagenet.report.page import render_page
from ffcv_imagenet.report.runs import load_runs
from ffcv_imagenet.report.table import TableRow, table
from ffcv_imagenet.report.text import format_table

REPOSITORY = Path(__file__).parents[2]


def only_row(root: Path) -> TableRow:
    (row,) = table(read_runs(root))
    return row


def test_figures_equal_numpy(tmp_path):
    curves = np.array([[0.1, 0.5, 0.7, 0.71], [0.2, 0.6, 0.75, 0.7], [0.1, 0.4, 0.65, 0.69]])
    top_k = [0.91, 0.93, 0.96]
    speeds = [100.0, 200.0, 400.0, 400.0]
    for seed, curve in enumerate(curves):
        log = "".join(
            epoch_line(e, v, top_k[seed], (seed + 1) * s)
            for e, (v, s) in enumerate(zip(curve, speeds, strict=True), start=1)
        )
        make_run(tmp_path, f"run{seed}", seed=seed, log=log)
    row = only_row(tmp_path)
    assert (row.runs, row.seeds, row.unfinished, row.epochs, row.notes) == (3, 3, 0, EPOCHS, "")
    assert row.top_1_percent == pytest.approx(100 * curves[:, -1].mean())
    assert row.top_1_sd_percent == pytest.approx(100 * curves[:, -1].std(ddof=1))
    assert row.best_top_1_percent == pytest.approx(100 * curves.max(axis=1).mean())
    assert row.top_k_percent == pytest.approx(100 * np.mean(top_k))
    assert row.k == 5
    assert row.minutes == pytest.approx(EPOCHS)
    # Images over seconds of a whole run, with the same number of images in each epoch.
    whole_run = EPOCHS / np.sum(1 / np.array(speeds))
    assert row.images_per_second == pytest.approx(np.mean([1, 2, 3]) * whole_run)


def test_one_run_has_no_spread(tmp_path):
    make_run(tmp_path, "run")
    row = only_row(tmp_path)
    assert row.top_1_percent == pytest.approx(30)
    assert row.best_top_1_percent == pytest.approx(40)
    assert row.top_1_sd_percent is None
    assert "30.00 ± -" in format_table(table(read_runs(tmp_path)))


@pytest.mark.parametrize(
    ("top_1", "state", "note"),
    [
        ((0.1, 0.2), "failed", "1 failed at 2/4"),
        ((0.1, 0.2, 0.3, 0.9), "failed", "1 failed at 4/4"),
        ((0.1, 0.2, 0.9), "running", "1 running at 3/4"),
        ((), "running", "1 running at 0/4"),
        ((0.1,), "interrupted", "1 interrupted at 1/4"),
        ((0.1, 0.9), None, "1 at 2/4"),
        ((0.1, 0.9), "finished", "1 at 2/4"),
        ((0.1, 0.9, 0.9, None), "finished", "1 at 4/4 without final top-1"),
    ],
)
def test_unfinished_runs_are_named_and_never_averaged(tmp_path, top_1, state, note):
    make_run(tmp_path, "a", seed=0, top_1=top_1, state=state)
    alone = only_row(tmp_path)
    assert (alone.runs, alone.seeds, alone.unfinished, alone.notes) == (0, 0, 1, note)
    figures = ["top_1_percent", "top_1_sd_percent", "best_top_1_percent", "top_k_percent", "k", "minutes"]
    assert {getattr(alone, figure) for figure in figures} == {None}
    assert format_table(table(read_runs(tmp_path))).splitlines()[-1].endswith(note)

    make_run(tmp_path, "b", seed=1)
    beside = only_row(tmp_path)
    assert (beside.runs, beside.unfinished, beside.notes) == (1, 1, note)
    assert beside.top_1_percent == pytest.approx(30)


@pytest.mark.parametrize("state", ["running", "interrupted", None])
def test_all_epochs_logged_is_finished_unless_failed(tmp_path, state):
    make_run(tmp_path, "run", state=state)
    assert only_row(tmp_path).runs == 1


def test_equal_states_are_counted_together(tmp_path):
    for seed in range(3):
        make_run(tmp_path, f"run{seed}", seed=seed, top_1=(0.1,) * (1 + seed // 2), state="failed")
    assert only_row(tmp_path).notes == "2 failed at 1/4, 1 failed at 2/4"


def old_line(epoch, top_1):
    line = json.loads(epoch_line(epoch, top_1, 0.9))
    return json.dumps({key: value for key, value in line.items() if key not in ("top_k", "k")} | {"top_5": 0.8}) + "\n"


def test_scores_of_another_k_stand_in_a_column_of_their_own(tmp_path):
    lines = [(e, v) for e, v in enumerate((0.1, 0.2, 0.3, 0.4), start=1)]
    make_run(tmp_path, "five", loss="baseline", log="".join(epoch_line(e, v) for e, v in lines))
    make_run(tmp_path, "earlier", loss="maxsup", log="".join(old_line(e, v) for e, v in lines))
    options = {"validation__top_k": 2}
    of_two = "".join(epoch_line(e, v, 0.7, k=2) for e, v in lines)
    make_run(tmp_path, "two", loss="label_smoothing", log=of_two, **options)
    rows = table(read_runs(tmp_path))
    header, _, *cells = [re.split(r" {2,}", line.strip()) for line in format_table(rows).splitlines()]
    columns = [header.index("top-2 last (%)"), header.index("top-5 last (%)")]
    assert [[row[column] for column in columns] for row in cells] == [["-", "90.00"], ["70.00", "-"], ["-", "80.00"]]
    page = render_page(read_runs(tmp_path))
    heads = re.findall(r'<th scope="col">(top-. \(%\))</th>', page)
    assert heads == ["top-2 (%)", "top-5 (%)"]

    # Seeds that differ in k alone are averaged, but for the score that is not the same.
    make_run(tmp_path, "other", loss="label_smoothing", seed=1, log="".join(epoch_line(e, v) for e, v in lines))
    [row] = [row for row in table(read_runs(tmp_path)) if row.loss == "label_smoothing"]
    assert (row.runs, row.top_1_percent, row.k, row.top_k_percent) == (2, pytest.approx(40), None, None)


def test_epochs_that_were_not_evaluated_are_left_out(tmp_path):
    log = epoch_line(1, None, None, None) + epoch_line(2, 0.5) + epoch_line(3, None, None) + epoch_line(4, 0.4, None)
    make_run(tmp_path, "run", log=log)
    row = only_row(tmp_path)
    assert row.best_top_1_percent == pytest.approx(50)
    assert row.top_1_percent == pytest.approx(40)
    assert row.top_k_percent is None
    assert row.images_per_second == pytest.approx(1000)


@pytest.mark.parametrize(
    "options",
    [
        {"data__num_workers": 2},
        {"data__train": "/scratch/job7/train.beton"},
        {"logging__folder": "elsewhere"},
        {"checkpoint__every_steps": 2},
        {"dist__timeout_minutes": 5},
    ],
)
def test_irrelevant_options_are_averaged(tmp_path, options):
    make_run(tmp_path, "a", seed=0)
    make_run(tmp_path, "b", seed=1, **options)
    assert only_row(tmp_path).runs == 2
    assert "differs in" not in format_table(table(read_runs(tmp_path)))


def test_options_that_were_not_given_are_those_of_other_versions_that_wrote_the_default(tmp_path):
    make_run(
        tmp_path, "a", seed=0, loss__alpha_end=None, loss__smoothing=None, lr__schedule="cosine", lr__warmup_epochs=None
    )
    make_run(tmp_path, "b", seed=1, loss__alpha_end=0.2, lr__schedule="cosine", lr__warmup_epochs=0)
    assert only_row(tmp_path).runs == 2


@pytest.mark.parametrize(
    ("changed", "texts"),
    [
        ({"lr__lr": 0.85}, ["lr.lr=0.85", "lr.lr=1.7"]),
        ({"loss__alpha_start": 0.2}, ["loss.alpha_start=0.1", "loss.alpha_start=0.2"]),
        ({"train_data": "33333333aa"}, ["train_data=11111111", "train_data=33333333"]),
        ({"world_size": 8}, ["world_size=1", "world_size=8"]),
        ({"model__new": True}, ["model.new=(absent)", "model.new=true"]),
        (
            {"lr__lr": 0.85, "training__epochs": 3, "top_1": (0.1, 0.2, 0.3)},
            ["lr.lr=0.85, training.epochs=3", "lr.lr=1.7, training.epochs=4"],
        ),
    ],
)
def test_runs_with_other_options_get_a_row_of_their_own(tmp_path, changed, texts):
    make_run(tmp_path, "a", seed=0)
    make_run(tmp_path, "b", seed=1, **changed)
    rows = table(read_runs(tmp_path))
    assert [row.differs_in for row in rows] == texts
    assert [row.runs for row in rows] == [1, 1]
    text = format_table(rows)
    assert "differs in" in text
    assert all(t in text for t in texts)


def test_differing_options_are_shown_across_losses_but_not_the_options_of_another_loss(tmp_path):
    make_run(tmp_path, "a", loss="baseline", loss__alpha_start=0.0, lr__lr=0.5)
    make_run(tmp_path, "b", loss="maxsup", loss__alpha_start=0.1, lr__lr=1.7)
    make_run(tmp_path, "c", loss="maxsup", recipe="other", lr__lr=3.0)
    assert [row.differs_in for row in table(read_runs(tmp_path))] == ["", "lr.lr=0.5", "lr.lr=1.7"]


def test_the_runs_of_one_seed_count_as_their_mean(tmp_path):
    for index, (seed, value) in enumerate([(0, 0.5), (0, 0.6), (1, 0.7)]):
        make_run(tmp_path, f"run{index}", seed=seed, top_1=(0.1, 0.2, 0.3, value))
    row = only_row(tmp_path)
    assert (row.runs, row.seeds) == (3, 2)
    assert row.top_1_percent == row.best_top_1_percent == pytest.approx((55 + 70) / 2)
    assert row.top_1_sd_percent == pytest.approx(np.std([55, 70], ddof=1))
    assert "3 runs, 2 seeds" in format_table(table(read_runs(tmp_path)))


def test_two_runs_of_one_seed_have_no_spread(tmp_path):
    for index in range(2):
        make_run(tmp_path, f"run{index}", seed=0)
    row = only_row(tmp_path)
    assert (row.runs, row.seeds, row.top_1_sd_percent) == (2, 1, None)
    text = format_table([row])
    assert "2 runs, 1 seed " in text
    assert "30.00 ± -" in text


def test_waiting_is_averaged_without_the_epoch_of_the_start_up(tmp_path):
    lines = [epoch_line(e, 0.5).replace('"wait_share": 0.0', f'"wait_share": {w}') for e, w in ((1, 0.44), (2, 0.01))]
    make_run(tmp_path, "two", log="".join(lines), training__epochs=2)
    assert only_row(tmp_path).wait_share_percent == pytest.approx(1)
    make_run(tmp_path / "other", "one", log=lines[0], training__epochs=1)
    assert only_row(tmp_path / "other").wait_share_percent == pytest.approx(44)


def test_times_of_different_machines_are_marked(tmp_path):
    make_run(tmp_path, "a", seed=0)
    make_run(tmp_path, "b", seed=1, hardware="A100")
    row = only_row(tmp_path)
    assert (row.runs, row.notes) == (2, "timed on different machines")


def test_order_of_rows(tmp_path):
    losses = ["zipf", *reversed(LOSS_ORDER), "arc"]
    for arch in ("resnet101", "resnet18"):
        for loss in losses:
            make_run(tmp_path, f"{arch}_{loss}", loss=loss, arch=arch)
    rows = table(read_runs(tmp_path))
    assert [row.architecture for row in rows] == ["resnet18"] * len(losses) + ["resnet101"] * len(losses)
    assert [row.loss for row in rows] == [*LOSS_ORDER, "arc", "zipf"] * 2


def test_runs_are_found_once_however_they_are_given(tmp_path):
    folder = make_run(tmp_path, "deep/down/run")
    assert [run.folder for run in read_runs(folder, tmp_path, tmp_path / "deep")] == [folder.resolve()]


@pytest.mark.parametrize("tail", [b"{", b'{"epoch": 3, "top', b'{"note": "\xc3'])
def test_a_last_line_that_is_being_written_is_ignored(tmp_path, tail):
    folder = make_run(tmp_path, "run", top_1=(0.1, 0.2), state="running")
    with (folder / "log.jsonl").open("ab") as file:
        file.write(tail)
    assert only_row(tmp_path).notes == "1 running at 2/4"


def test_the_later_line_of_an_epoch_counts_after_a_resume(tmp_path):
    log = "".join(epoch_line(e, v) for e, v in [(1, 0.1), (2, 0.9), (3, 0.9), (2, 0.2), (3, 0.3), (4, 0.4)])
    make_run(tmp_path, "run", log=log)
    (run,) = read_runs(tmp_path)
    assert [e.top_1 for e in run.log] == [0.1, 0.2, 0.3, 0.4]


def test_a_run_without_a_log_has_done_nothing_yet(tmp_path):
    folder = make_run(tmp_path, "run", state="running")
    (folder / "log.jsonl").unlink()
    assert only_row(tmp_path).notes == "1 running at 0/4"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("params.json", '{"name": ', "params.json is not valid JSON"),
        ("params.json", "[]", "params.json: allowed is a JSON object"),
        ("params.json", "{}", "params.json: 'config' is missing"),
        ("params.json", '{"config": {}}', "params.json: 'train_data' is missing"),
        ("params.json", '{"config": 1}', "params.json: 'config' is 1"),
        ("status.json", "{", "status.json is not valid JSON"),
        (
            "log.jsonl",
            epoch_line(1, 0.1) + "{broken\n" + epoch_line(2, 0.2),
            "log.jsonl, line 2 is not valid JSON",
        ),
        ("log.jsonl", epoch_line(1, 0.1) + "{broken\n", "log.jsonl, line 2 is not valid JSON"),
        ("log.jsonl", "7\n", "log.jsonl, line 1: allowed is a JSON object"),
        ("log.jsonl", '{"epoch": 1}\n', "log.jsonl, line 1: 'top_1' is missing"),
        ("log.jsonl", epoch_line(1, "high"), "log.jsonl, line 1: top_1: got 'high'"),  # type: ignore[arg-type]
        ("log.jsonl", epoch_line(1, math.nan), "log.jsonl, line 1: top_1: got nan"),
        ("log.jsonl", epoch_line(1, 76.5), "log.jsonl, line 1: top_1: got 76.5, allowed is a number from 0 to 1"),
        ("log.jsonl", epoch_line(1, True), "log.jsonl, line 1: top_1: got True"),
        (
            "log.jsonl",
            epoch_line(1, 0.1).replace('"val_loss": null', '"val_loss": NaN'),
            "log.jsonl, line 1: val_loss: got nan, allowed is a finite number or null",
        ),
        ("log.jsonl", epoch_line(1, 0.1).replace("0.1", "1e999"), "log.jsonl, line 1: top_1: got inf"),
        ("status.json", '{"state": 3}', "status.json: state: got 3"),
        ("log.jsonl", epoch_line(1, 0.1, speed=math.inf), "log.jsonl, line 1: images_per_second: got inf"),
        ("log.jsonl", epoch_line(1.5, 0.1), "log.jsonl, line 1: epoch: got 1.5"),  # type: ignore[arg-type]
    ],
)
def test_a_run_with_a_broken_file_is_left_out_and_named(tmp_path, name, content, message):
    folder = make_run(tmp_path, "broken")
    (folder / name).write_text(content)
    sound = make_run(tmp_path, "sound", seed=1)
    runs, left_out = load_runs([tmp_path])
    assert [run.folder for run in runs] == [sound]
    assert [run.folder for run in left_out] == [folder]
    assert message in left_out[0].reason
    assert str(folder) in left_out[0].reason
    shutil.rmtree(sound)
    with pytest.raises(ValueError, match=re.escape(message)):
        load_runs([tmp_path])


def test_a_file_that_cannot_be_read_is_a_broken_one(tmp_path):
    make_run(tmp_path, "sound")
    folder = make_run(tmp_path, "broken")
    (folder / "log.jsonl").unlink()
    (folder / "log.jsonl").mkdir()
    assert [run.folder for run in load_runs([tmp_path])[1]] == [folder]


def test_an_epoch_may_be_written_as_a_float(tmp_path):
    make_run(tmp_path, "run", log="".join(epoch_line(float(e), 0.5) for e in range(1, EPOCHS + 1)))
    epochs = [epoch.epoch for epoch in read_runs(tmp_path)[0].log]
    assert epochs == [1, 2, 3, 4]
    assert {type(epoch) for epoch in epochs} == {int}


def test_folders_without_runs_are_errors(tmp_path):
    make_run(tmp_path, "runs/a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no run found"):
        read_runs(tmp_path / "runs", tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="gone"):
        read_runs(tmp_path / "gone")


def test_markdown_is_a_well_formed_aligned_table(tmp_path):
    make_run(tmp_path, "a", loss="baseline")
    make_run(tmp_path, "b", loss="odd|name", top_1=(0.1,), state="failed")
    lines = format_table(table(read_runs(tmp_path)), markdown=True).splitlines()
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    assert len({len(line) for line in lines}) == 1
    assert {len(row) for row in cells} == {len(cells[0])}
    assert [c.strip() for c in cells[0]][2:5] == ["loss", "seeds", "top-1 last (%)"]
    assert re.fullmatch(r" -+ ", cells[1][2])
    assert re.fullmatch(r" -+: ", cells[1][4])
    assert cells[2][4].strip() == "30.00 ± -"
    assert cells[3][2].strip() == r"odd\|name"
    assert cells[3][4].strip() == "-"


def test_plot_draws_every_group(tmp_path):
    make_run(tmp_path, "a", loss="baseline", seed=0)
    make_run(tmp_path, "b", loss="baseline", seed=1, top_1=(0.2, 0.3, 0.4, 0.5))
    make_run(tmp_path, "c", loss="maxsup", top_1=(0.1, 0.2), state="running")
    make_run(tmp_path, "d", loss="maxsup", arch="resnet18", top_1=(None, 0.2, None, 0.4))
    make_run(tmp_path, "e", loss="other", arch="resnet18", top_1=(), state="running")
    runs = read_runs(tmp_path)
    assert len(group_runs(runs)) == 4
    file = tmp_path / "top_1.png"
    plot(runs, file)
    assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    height, width, _ = imread(file).shape
    assert height > 800
    assert width > 1200
    assert file.stat().st_size > 20_000
    assert not list(tmp_path.glob(".*"))


def test_plot_before_the_first_evaluation(tmp_path):
    make_run(tmp_path, "a", top_1=(None,), state="running")
    plot(read_runs(tmp_path), tmp_path / "top_1.png")
    assert (tmp_path / "top_1.png").exists()


def test_plot_takes_only_runs_and_png_names(tmp_path):
    make_run(tmp_path, "a")
    with pytest.raises(ValueError, match=r"\.png"):
        plot(read_runs(tmp_path), tmp_path / "top_1.pdf")
    with pytest.raises(ValueError, match="no runs"):
        plot([], tmp_path / "top_1.png")


@pytest.mark.parametrize(
    ("option", "target", "error"),
    [("--csv", "gone/t.csv", FileNotFoundError), ("--markdown", "runs", ValueError)],
)
def test_output_files_that_cannot_be_written(tmp_path, option, target, error):
    make_run(tmp_path, "runs/a")
    with pytest.raises(error, match=target.split("/")[0]):
        main([str(tmp_path / "runs"), option, str(tmp_path / target)])


def test_pipes_and_links_are_written_to_and_stay(tmp_path):
    make_run(tmp_path / "runs", "a")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.csv").symlink_to("file.csv")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    for name in ("pipe", "link.csv"):
        main([str(tmp_path / "runs"), "--csv", str(tmp_path / name)])
    written = os.read(reader, 100_000)
    os.close(reader)
    assert written == (tmp_path / "file.csv").read_bytes()
    assert written.startswith(b"architecture,")
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link.csv").is_symlink()


def report(*arguments: Path | str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ffcv_imagenet.report", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, encoding="utf-8", timeout=120)


def test_command_line(tmp_path):
    runs = tmp_path / "runs"
    make_run(runs, "a", loss="baseline", seed=0)
    make_run(runs, "b", loss="baseline", seed=1, top_1=(0.1, 0.2, 0.3, 0.4))
    failed = make_run(runs, "c", seed=2, top_1=(0.1,), state="failed", error="loss is\nnan")
    files = [tmp_path / "t.csv", tmp_path / "t.md", tmp_path / "t.png"]
    damaged = make_run(runs, "d", seed=3, log=epoch_line(1, math.nan))
    got = report(runs, "--csv", files[0], "--markdown", files[1], "--plot", files[2])
    assert got.returncode == 0, got.stderr
    assert re.fullmatch(rf"warning: {damaged} is left out: .*log.jsonl, line 1: top_1: got nan.*\n", got.stderr)
    shutil.rmtree(damaged)
    assert "35.00 ± 7.07" in got.stdout
    assert f"{failed.resolve()} (failed at 1/4): loss is nan" in got.stdout
    rows = list(csv.DictReader(files[0].read_text(encoding="utf-8").splitlines()))
    expected = list(map(dataclasses.asdict, table(read_runs(runs))))
    assert rows == [{key: "" if value is None else str(value) for key, value in row.items()} for row in expected]
    assert float(rows[0]["top_1_percent"]) == expected[0]["top_1_percent"]
    assert files[1].read_text(encoding="utf-8") == format_table(table(read_runs(runs)), markdown=True) + "\n"
    assert files[2].stat().st_size > 20_000


def test_command_line_mistakes_are_one_line_and_status_2(tmp_path):
    got = report(tmp_path / "gone")
    assert got.returncode == 2
    assert got.stdout == ""
    assert re.fullmatch(r"error: .+\n", got.stderr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no folder given, allowed are one or more, or none with --plan=DIFFERENCE --sd=POINTS"),
        (["{}"], "no run found"),
        (["{}", "--tsv"], "--tsv"),
        (["--plan=0.5"], "no folder given"),
        (["--plan=0.5", "--sd=0.1", "--csv=t.csv"], "no folder given"),
        (["{}", "--sd=0.1"], "--sd goes with --plan=DIFFERENCE"),
        (["{}", "--plan=0"], "argument --plan: got 0, allowed is a number above 0"),
        (["{}", "--plan=nan"], "argument --plan: got nan, allowed is a number above 0"),
        (["{}", "--plan=much"], "argument --plan: got much, allowed is a number above 0"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        main([argument.format(tmp_path) for argument in arguments])


def test_a_table_without_spread_needs_no_heavy_package(tmp_path):
    make_run(tmp_path, "a")
    code = (
        "import sys; from ffcv_imagenet.report import main; main([sys.argv[1]]); "
        "heavy = {'torch', 'ffcv', 'numpy', 'pandas', 'scipy', 'matplotlib', 'jinja2'}; print(heavy & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    got = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, encoding="utf-8", timeout=120)
    assert got.stdout.splitlines()[-1] == "set()"
