"""A sweep: its plan, the machine cut into slots, and its scheduler at work on real processes."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from rich.live import Live

from ffcv_imagenet.config import SweepOptions
from ffcv_imagenet.losses import LOSSES
from ffcv_imagenet.run import lock as run_lock
from ffcv_imagenet.sweep import __main__ as command
from ffcv_imagenet.sweep.devices import Slot, make_slots, visible_gpus
from ffcv_imagenet.sweep.jobs import Job, Progress, Run, make_job, read_progress, sweep_seconds_left
from ffcv_imagenet.sweep.plan import Plan, make_plan
from ffcv_imagenet.sweep.processes import OUTPUT, is_active, last_error, processes_of, start
from ffcv_imagenet.sweep.scheduler import Scheduler
from ffcv_imagenet.sweep.view import LiveView, PlainView, status_table
from ffcv_imagenet.units import duration

ROOT = Path(__file__).parents[2]
CORES = tuple(sorted(os.sched_getaffinity(0)))


def plan_of(digits, tmp_path, *words):
    data = (f"--data.train={digits / 'train.beton'}", f"--data.val={digits / 'val.beton'}")
    recipe = ("--config-file", str(ROOT / "rn_configs" / "digits.yaml"), "--training.batch_size=32")
    return make_plan([*recipe, *data, f"--runs={tmp_path / 'runs'}", *words])


def names(plan):
    return [run.name.removeprefix("digits_resnet10_") for run in plan.runs]


def test_one_run_per_loss_and_seed_and_every_loss_before_the_next_seed(digits, tmp_path):
    plan = plan_of(digits, tmp_path, "--sweep.loss=baseline,maxsup", "--sweep.seeds=3,0-1")
    assert names(plan) == [f"{loss}_seed{seed}" for seed in (3, 0, 1) for loss in ("baseline", "maxsup")]
    assert [run.number for run in plan.runs] == [1, 2, 3, 4, 5, 6]
    last = plan.runs[-1]
    assert last.folder == tmp_path / "runs" / last.name
    assert last.epochs == 8
    assert last.command[:3] == (sys.executable, "-m", "ffcv_imagenet.train")
    assert {"--loss.name=maxsup", "--training.seed=1", "--checkpoint.resume=auto"} <= set(last.command)
    assert not plan.dry_run
    assert not tmp_path.joinpath("runs").exists()


def test_any_option_can_be_swept_and_a_runs_name_does_not_depend_on_the_rest_of_the_sweep(digits, tmp_path):
    both = plan_of(digits, tmp_path, "--sweep.lr.lr=0.5,1", "--sweep.data.flip=1", "--loss.name=maxsup")
    assert names(both) == ["maxsup_seed0_data.flip=1_lr.lr=0.5", "maxsup_seed0_data.flip=1_lr.lr=1.0"]
    one = plan_of(digits, tmp_path, "--loss.name=maxsup", "--sweep.data.flip=yes", "--sweep.lr.lr=1.00")
    assert names(one) == names(both)[1:]


def test_a_sweep_over_all_losses_keeps_their_order_and_gives_each_its_schedule(digits, tmp_path):
    words = ("--loss.smoothing_start=0.1", "--loss.smoothing_end=0.2", "--loss.class_weights=effective")
    plan = plan_of(digits, tmp_path, f"--sweep.loss={','.join(LOSSES.kinds)}", *words)
    assert names(plan) == [f"{loss}_seed0" for loss in LOSSES.kinds]
    smoothed = [loss for loss, run in zip(LOSSES.kinds, plan.runs, strict=True)
                if "--loss.smoothing_end=none" not in run.command]  # fmt: skip
    assert smoothed == ["label_smoothing", "ls_regularization_only", "ls_error_amplification_only"]
    with pytest.raises(ValueError, match=r"model.arch: got vgg11, allowed .* --loss.ranking=logits"):
        plan_of(digits, tmp_path, "--sweep.loss=baseline,zipf_label_smoothing", "--model.arch=vgg11")


def test_an_option_of_a_loss_goes_to_the_losses_that_take_it(digits, tmp_path):
    sweep = ("--sweep.loss=baseline,label_smoothing,maxsup", "--sweep.loss.alpha_end=0.2,0.3", "--loss.smoothing=0.2")
    plan = plan_of(digits, tmp_path, *sweep)
    assert names(plan) == [
        *("baseline_seed0", "label_smoothing_seed0"),
        *("maxsup_seed0_loss.alpha_end=0.2", "maxsup_seed0_loss.alpha_end=0.3"),
    ]
    assert ["--loss.smoothing=none" in run.command for run in plan.runs] == [True, False, True, True]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sweep.loss=baseline,maxsup", "--loss.smoothing=0.1"], "smoothing"),
        (["--sweep.loss=baseline,huber"], r"loss.name: got 'huber', allowed is baseline"),
        (["--sweep.loss=baseline,baseline"], r"sweep.loss: got baseline,baseline, allowed are different"),
        (["--sweep.lr.lr=0.5,0.50"], r"twice"),
        (["--sweep.lr.lr=0.5,"], r"lr.lr: got ''"),
        (["--sweep.seeds=2-1"], r"sweep.seeds: got"),
        (["--sweep.loss=baseline", "--sweep.loss.name=maxsup"], "loss.name is swept twice"),
        (["--sweep.loss=baseline", "--loss.name=maxsup"], "given for all runs as well"),
        (["--sweep.logging.name=a,b"], "allowed are options other than"),
        (["--checkpoint.resume=none"], "a sweep sets it itself"),
        (["--training.eval_only=1"], "a sweep sets it itself"),
        (["--sweep.colour=red"], r"unknown argument '--sweep.colour=red'"),
        (["--lr.rate=1"], r"unknown argument '--lr.rate=1'"),
        (["--sweep.retries=-1"], r"sweep.retries: got '-1', allowed is a whole number >= 0"),
        (["--sweep.only=2"], r"sweep.only: got 2, allowed is a run's number from 1 to 1"),
        (["--sweep.cores_per_run=9999"], r"sweep.cores_per_run: got 9999"),
        (["--dist.device=cpu", "--sweep.gpus_per_run=1"], r"sweep.gpus_per_run: got 1, allowed is none"),
        (["--data.val=nowhere.beton"], "not found"),
        (["--model.weights=nowhere.pt"], "weights not found: nowhere.pt"),
        (["--sweep.model.arch=resnet10,resnet49"], r"model.arch: got 'resnet49'"),
        (["--sweep.model.arch=resnet10,vit_b_16"], r"vit_b_16 cannot take images of"),
        (["--training.accumulation=32", "--resolution.min_res=8"], r"a micro-batch has one image"),
        (["--training.batch_size=97"], r"training.batch_size: got 97, allowed are at most the 96 images"),
        (["--runs"], "expected one argument"),
        (["--config-file"], "expected one argument"),
    ],
)
def test_mistakes_are_found_before_anything_starts(digits, tmp_path, words, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        plan_of(digits, tmp_path, *words)
    assert not any(tmp_path.iterdir())


def test_a_name_cannot_leave_the_folder_of_the_runs(digits, tmp_path):
    projects = ["../../../etc/a", "..-..-..-etc/a", "/" + "x" * 300]
    plan = plan_of(digits, tmp_path, f"--sweep.logging.wandb={','.join(projects)}")
    assert len(set(names(plan))) == 3
    for run in plan.runs:
        assert run.folder.resolve().parent == (tmp_path / "runs").resolve()
        assert len(run.name) < 255


def test_only_one_run_of_the_sweep(digits, tmp_path):
    plan = plan_of(digits, tmp_path, "--sweep.seeds=0-3", "--sweep.only=3", "--dry-run")
    assert [(run.number, run.name[-5:]) for run in plan.runs] == [(3, "seed2")]
    assert plan.dry_run
    assert plan.slots == (Slot((), CORES),)


def test_several_gpus_per_run_are_one_torchrun(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 5)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,6,5,4,3,99,2")
    plan = plan_of(digits, tmp_path, "--sweep.seeds=0-3", "--sweep.gpus_per_run=2", "--dist.device=cuda")
    assert [slot.gpus for slot in plan.slots] == [("7", "6"), ("5", "4")]
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    assert list(plan.runs[0].command[1:5]) == words
    with pytest.raises(ValueError, match=r"training.batch_size: got 32, allowed is a multiple of 5"):
        plan_of(digits, tmp_path, "--sweep.gpus_per_run=5")
    with pytest.raises(ValueError, match=r"sweep.gpus_per_run: got 8, allowed are at most the 5 GPUs"):
        plan_of(digits, tmp_path, "--sweep.gpus_per_run=8")


def test_a_run_that_was_made_with_other_options_is_refused(digits, tmp_path):
    run = plan_of(digits, tmp_path).runs[0]
    run.folder.mkdir(parents=True)
    (run.folder / "params.json").write_text(json.dumps({"config": {"lr.lr": 0.25, "data.num_workers": 3}}))
    with pytest.raises(ValueError, match=r"holds a run with lr.lr=0.25, got 0.1"):
        plan_of(digits, tmp_path)
    assert plan_of(digits, tmp_path, "--lr.lr=0.25")
    (run.folder / "params.json").write_text(json.dumps({"config": {}, "train_data": "another"}))
    with pytest.raises(ValueError, match="holds a run with train_data=another"):
        plan_of(digits, tmp_path)
    (run.folder / "params.json").write_text(json.dumps({"config": {}, "micro_batch": 8}))
    with pytest.raises(ValueError, match=r"to continue .* allowed is --training.accumulation=4, or another --runs"):
        plan_of(digits, tmp_path)
    for damaged in ("", "[]"):
        (run.folder / "params.json").write_text(damaged)
        with pytest.raises(ValueError, match=rf"^{run.folder}/params.json"):
            plan_of(digits, tmp_path)


@pytest.mark.parametrize(
    ("listed", "names"),
    [(None, ["0", "1"]), ("3, 1", ["3", "1"]), ("GPU-8f,GPU-9a,7", ["GPU-8f", "GPU-9a"]), ("", []), ("-1", [])],
)
def test_gpus_keep_the_names_that_they_were_given(listed, names, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus(len(names)) == names


def two_sockets(root):
    """A machine as /proc and /sys show it: 2 NUMA nodes, 4 cores with 2 threads each, a GPU on each node."""
    for cpu in range(8):
        folder = root / f"sys/devices/system/cpu/cpu{cpu}"
        (folder / f"node{cpu % 4 // 2}").mkdir(parents=True)
        (folder / "topology").mkdir()
        (folder / "topology" / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    for bus, uuid, node in (("0000:1A:00.0", "GPU-aaaa-1", 1), ("0000:2b:00.0", "GPU-bbbb-2", 0)):
        for folder in (f"proc/driver/nvidia/gpus/{bus}", f"sys/bus/pci/devices/{bus.lower()}"):
            (root / folder).mkdir(parents=True)
        (root / f"proc/driver/nvidia/gpus/{bus}/information").write_text(f"Model: \t X\nGPU UUID: \t {uuid}\n")
        (root / f"sys/bus/pci/devices/{bus.lower()}/numa_node").write_text(f"{node}\n")
    return root


@pytest.mark.parametrize(
    ("gpus", "options", "cores"),
    [
        ([], {}, [(0, 4), (1, 5), (2, 6), (3, 7)]),
        ([], {"runs": 2}, [(0, 1, 4, 5), (2, 3, 6, 7)]),
        ([], {"runs": 9, "cores_per_run": 1}, [(0,), (4,), (1,), (5,), (2,), (6,), (3,), (7,)]),
        ([], {"cores_per_run": 3}, [(0, 1, 4), (2, 5, 6)]),
        (["0", "1"], {}, [(2, 3, 6, 7), (0, 1, 4, 5)]),
        (["GPU-bbbb", "GPU-aaaa"], {"cores_per_run": 2}, [(0, 4), (2, 6)]),
        (["0", "1"], {"gpus_per_run": 2}, [(0, 1, 2, 3, 4, 5, 6, 7)]),
        (["MIG-1", "MIG-2", "MIG-3"], {}, [(0, 4), (1, 5), (2, 6)]),
    ],
)
def test_slots_share_the_cores_near_their_gpus(tmp_path, gpus, options, cores):
    settings = {"gpus_per_run": None, "cores_per_run": None, "runs": 4} | options
    slots = make_slots(gpus, range(8), root=two_sockets(tmp_path), **settings)
    assert [slot.cores for slot in slots] == cores


def test_more_gpus_than_cores():
    slots = make_slots(["0", "1", "2"], [5, 9], gpus_per_run=1, cores_per_run=None, runs=3)
    assert [slot.cores for slot in slots] == [(5,), (9,), (5,)]
    assert [str(slot) for slot in slots] == ["GPU 0 on core 5", "GPU 1 on core 9", "GPU 2 on core 5"]
    assert str(Slot((), (0, 1, 2, 5))) == "cores 0-2,5"


# A stand-in for the trainer: the same files and signals, without torch. How it fails is its last word.
TRAINER = """
import json, os, signal, subprocess, sys, time
from pathlib import Path

folder, epochs, seconds, how = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]

def write(name, text):
    (folder / "new").write_text(text)
    (folder / "new").rename(folder / name)

def stop(*_):
    write("status.json", json.dumps({"state": "interrupted"}))
    sys.exit(75)

signal.signal(signal.SIGTERM, signal.SIG_IGN if how == "stubborn" else stop)
log = (folder / "log.jsonl").read_text().splitlines() if (folder / "log.jsonl").is_file() else []
place = [sorted(os.sched_getaffinity(0)), os.environ.get("CUDA_VISIBLE_DEVICES"), len(log)]
with (folder / "starts").open("a") as file:
    file.write(json.dumps(place) + "\\n")
write("status.json", '{"state": "running"}')
if how == "mistake":
    sys.exit("error: lr.lr: got -1\\n[torchrun says much]\\nChildFailedError: rank 0")
if how == "loses a process once" and not log:
    write("log.jsonl", json.dumps({"epoch": 1, "top_1": 0.1, "images_per_second": 1.0, "seconds": seconds}) + "\\n")
    sys.exit("error on rank 0: another process has ended, or has not answered\\nChildFailedError: rank 1")
for epoch in range(len(log) + 1, epochs + 1):
    time.sleep(seconds)
    line = {"epoch": epoch, "top_1": epoch / 10, "images_per_second": 100.0, "seconds": seconds}
    log.append(json.dumps(line))
    write("log.jsonl", "\\n".join(log) + "\\n")
    if how == "fails" or (how == "fails once" and len(log) == 1):
        raise RuntimeError("out of memory")
    if how == "leaves a worker":  # as a torchrun that is killed
        sleep = [sys.executable, "-c", "import time; time.sleep(100)"]
        print("worker", subprocess.Popen(sleep, start_new_session=True).pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "stubborn":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"], start_new_session=True)
write("status.json", '{"state": "finished"}')
"""


def test_the_top_1_of_a_run_is_that_of_the_last_epoch_that_has_one(tmp_path):
    lines = [
        {"epoch": n + 1, "top_1": v, "images_per_second": 1.0, "seconds": 1.0} for n, v in enumerate([0.1, 0.2, None])
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_progress(tmp_path) == Progress(None, 3, 0.2, 1.0, (1.0, 1.0, 1.0))


@pytest.fixture
def trainer(tmp_path):
    """Makes jobs that run the stand-in: ``trainer(name, epochs, seconds, how)``."""
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)

    def make(name, epochs=2, seconds=0.05, how="succeeds", number=1):
        folder = tmp_path / name
        command = (sys.executable, "-S", str(script), str(folder), str(epochs), str(seconds), how)
        return make_job(Run(number, name, folder, epochs, command), is_active(folder))

    return make


def schedule(jobs, slots=None, retries=1, stop_seconds=10.0):
    """Let a scheduler work, by default on one slot per core; returns whether it was stopped."""
    slots = slots or [Slot((), (core,)) for core in CORES[:2]]
    return Scheduler(jobs, slots, PlainView(), retries=retries, stop_seconds=stop_seconds).run()


def starts(job):
    """Cores, GPUs and finished epochs at each start of the stand-in."""
    return [json.loads(line) for line in (job.run.folder / "starts").read_text().splitlines()]


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def send_when(condition, number):
    """Send this process a signal as soon as a condition holds."""

    def send():
        wait_for(condition)
        os.kill(os.getpid(), number)

    threading.Thread(target=send).start()


def test_runs_share_the_slots_each_on_its_own_devices(trainer, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1,GPU-2")
    jobs = [trainer(name, seconds=0.2) for name in "abcd"]
    slots = [Slot(("GPU-1",), CORES[:1]), Slot(("GPU-2",), CORES[-1:])]
    assert not schedule(jobs, slots)
    assert [job.state for job in jobs] == ["finished"] * 4
    places = [starts(job)[0][:2] for job in jobs]
    assert places[:2] == [[list(CORES[:1]), "GPU-1"], [list(CORES[-1:]), "GPU-2"]]
    assert all(place in places[:2] for place in places[2:])
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert output.count("starts on GPU GPU-1 on core") == output.count("starts on GPU GPU-2 on core") == 2
    assert "a: epoch 2/2, top-1 20.00 %, 100 images/s; " in output
    assert re.search("[1-3] of 4 finished", output)
    # Finished runs are left alone.
    again = [trainer(name) for name in "abcd"]
    assert not schedule(again)
    assert [len(starts(job)) for job in again] == [1] * 4


def test_a_failed_run_is_started_again_and_does_not_stop_the_others(trainer, capsys):
    jobs = [trainer("once", how="fails once"), trainer("ever", 9, how="fails"), trainer("mistake", how="mistake")]
    jobs += [trainer("worker", how="leaves a worker"), trainer("good"), trainer("lost", how="loses a process once")]
    assert not schedule(jobs)
    assert [job.state for job in jobs] == ["finished", "failed", "failed", "failed", "finished", "finished"]
    assert [job.starts for job in jobs] == [2, 2, 1, 2, 1, 2]
    assert [place[2] for place in starts(jobs[0])] == [0, 1]  # It went on where it was.
    assert jobs[1].error == "exit status 1: RuntimeError: out of memory"
    assert jobs[2].error == "exit status 1: error: lr.lr: got -1"
    assert jobs[3].error == "ended by SIGKILL"
    output = capsys.readouterr().out
    assert "once: failed (exit status 1: RuntimeError: out of memory); it is started again" in output
    assert "once: resumes after epoch 1 on core" in output
    assert not processes_of(jobs[3].run.folder)
    assert "worker" in (jobs[3].run.folder / OUTPUT).read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_lets_the_runs_write_their_state_and_kills_what_does_not_end(trainer, number):
    jobs = [trainer("good", 1000), trainer("stubborn", 1000, how="stubborn"), trainer("waiting")]
    send_when(lambda: all(read_progress(job.run.folder).epochs_done for job in jobs[:2]), number)
    before = signal.getsignal(number)
    assert schedule(jobs, stop_seconds=0.5)
    assert [job.state for job in jobs] == ["stopped", "stopped", "waiting"]
    assert [read_progress(job.run.folder).state for job in jobs] == ["interrupted", "running", None]
    assert not any(processes_of(job.run.folder) for job in jobs)
    assert signal.getsignal(number) is before


def test_paths_that_are_no_utf_8_are_taken(digits, tmp_path):
    link = tmp_path / os.fsdecode(b"n\xff")
    link.symlink_to(digits, target_is_directory=True)
    [run] = plan_of(link, tmp_path, "--sweep.seeds=0").runs
    assert any(f"{link}/train.beton" in word for word in run.command)
    process = start((sys.executable, "-c", "", *run.command), tmp_path / "run", Slot((), CORES[:1]))
    assert process.wait(60) == 0
    assert b"n\xff/train.beton" in (tmp_path / "run/output.txt").read_bytes()


def test_a_run_that_was_started_by_hand_is_at_work(tmp_path):
    slot = Slot((), CORES[:1])
    with run_lock.hold(tmp_path / "run"):
        assert is_active(tmp_path / "run")
        assert start([sys.executable, "-c", ""], tmp_path / "run", slot) is None
    assert not is_active(tmp_path / "run")


def test_a_run_that_is_at_work_elsewhere_is_waited_for_and_keeps_its_devices(trainer):
    first = trainer("first", 3, 0.3)
    process = start(first.run.command, first.run.folder, Slot((), CORES[:1]))
    jobs = [trainer("first", 3, 0.3), trainer("second")]
    assert jobs[0].state == "elsewhere"
    assert start(first.run.command, first.run.folder, Slot((), CORES[:1])) is None
    threading.Thread(target=process.wait).start()  # Its parent; else it would stay a zombie.
    assert not schedule(jobs, [Slot((), CORES[:1])])
    assert [job.state for job in jobs] == ["finished", "finished"]
    assert [job.starts for job in jobs] == [0, 1]
    began = (jobs[1].run.folder / "starts").stat().st_mtime
    assert began > (jobs[0].run.folder / "log.jsonl").stat().st_mtime
    # What was left unfinished is taken over.
    left = trainer("left", 3, 0.05, how="fails once")
    start(left.run.command, left.run.folder, Slot((), CORES[:1])).wait()
    job = trainer("left", 3)
    assert not schedule([job])
    assert [place[2] for place in starts(job)] == [0, 1]


def test_the_runs_of_a_killed_sweep_stop_and_the_next_sweep_goes_on(trainer, tmp_path):
    job = trainer("run", 30, 0.1)
    sweep = f"""
from pathlib import Path
from ffcv_imagenet.sweep.processes import start
from ffcv_imagenet.sweep.devices import Slot
start({job.run.command!r}, Path({str(job.run.folder)!r}), Slot((), {CORES!r})).wait()
"""
    with subprocess.Popen([sys.executable, "-c", sweep], cwd=ROOT) as process:
        wait_for(lambda: read_progress(job.run.folder).epochs_done >= 2)
        process.kill()
    wait_for(lambda: not is_active(job.run.folder))
    progress = read_progress(job.run.folder)
    assert progress.state == "interrupted"
    assert progress.epochs_done < 30
    again = trainer("run", 30, 0.01)
    assert not schedule([again])
    assert [place[2] for place in starts(again)] == [0, progress.epochs_done]


def test_the_time_left_follows_the_epochs_so_far():
    def job(state, done, seconds):
        progress = Progress(None, done, 0.5, 1.0, tuple(seconds))
        return Job(Run(1, "run", Path("run"), 10, ()), state, progress)

    assert sweep_seconds_left([job("waiting", 0, [])], 1) is None
    # 8 epochs of 2 s beside 10 s of the mean, then another 10 epochs; on one slot all after another.
    jobs = [job("elsewhere", 2, [2.0, 2.0]), job("waiting", 0, []), job("waiting", 0, []), job("finished", 10, [2.0])]
    jobs[0].epoch_began = time.monotonic()
    assert sweep_seconds_left(jobs, 2) == pytest.approx(36)
    assert sweep_seconds_left(jobs, 1) == pytest.approx(56)
    assert [duration(s) for s in (5, 98.6, 600, 12000)] == ["5 s", "99 s", "10 min", "3 h 20 min"]


def test_the_live_view_has_a_line_per_run(trainer):
    jobs = [trainer("first", 3), trainer("second", 5)]
    jobs[0].progress = Progress("running", 2, 0.87654, 1234.5, (60.0, 60.0))
    jobs[0].state, jobs[0].slot = "running", Slot(("0",), (0, 1))
    file = io.StringIO()
    with Live(console=Console(file=file, force_terminal=True, width=120), auto_refresh=False) as live:
        view = LiveView(live)
        view.event(jobs[1], "failed ([/]: odd text)")
        view.show(jobs, 1)
    lines = file.getvalue().splitlines()
    assert any("second: failed ([/]: odd text)" in line for line in lines)
    assert any(all(word in line for word in ("first", "GPU 0", "2/3", "87.65", "1234", "60 s")) for line in lines)
    assert any(all(word in line for word in ("second", "new", "0/5")) for line in lines)
    assert any("0 of 2 finished, about 6 min left" in line for line in lines)


def test_a_small_terminal_shows_what_is_at_work(trainer):
    jobs = [trainer(f"run{number}", number=number) for number in range(1, 41)]
    for job in jobs[:20]:
        job.state = "finished"
    jobs[20].state, jobs[21].state, jobs[22].state = "failed", "running", "elsewhere"
    file = io.StringIO()
    console = Console(file=file, width=100)
    console.print(status_table(jobs, 2, 5))
    shown = re.findall(r"run\d+", file.getvalue())
    assert shown == ["run21", "run22", "run23", "run24", "run25"]
    assert "20 of 40 finished, 1 failed" in file.getvalue()
    assert "; 35 not shown" in file.getvalue()


@pytest.fixture
def main_with(monkeypatch):
    """Runs the command with jobs of the stand-in as its plan."""

    def run(jobs, *words, dry_run=False):
        options = SweepOptions(retries=0, stop_seconds=10)
        plan = Plan(tuple(job.run for job in jobs), (Slot((), CORES[:1]),), options, dry_run)
        monkeypatch.setattr("ffcv_imagenet.sweep.plan.make_plan", lambda argv: plan)
        command.main(words)

    return run


def test_the_plan_is_shown_and_a_dry_run_stops_there(trainer, main_with, capsys):
    schedule([trainer("half", 2)])
    jobs = [trainer("half", 4, number=1), trainer("whole", 3, number=2), trainer("third", 3, number=3)]
    main_with(jobs, dry_run=True)
    assert not jobs[1].run.folder.exists()
    assert capsys.readouterr().out.splitlines()[-6:] == [
        "   1  half     2/4 epochs  resumes after epoch 2",
        "   2  whole    0/3 epochs  new",
        "   3  third    0/3 epochs  new",
        f"Side by side: 1 (core {CORES[0]})",
        "To do: 3 of 3 runs, 8 epochs, in 3 rounds",
        "Time: about 0 s, by the epochs that are done",
    ]


def test_a_failed_run_is_the_sweeps_exit_status(trainer, main_with, capsys):
    with pytest.raises(SystemExit) as ended:
        main_with([trainer("bad", how="mistake"), trainer("good")])
    assert ended.value.code == 1
    captured = capsys.readouterr()
    assert "good: finished" in captured.out
    assert re.match(r"failed: bad: exit status 1: error: lr.lr: got -1; see .*bad/output.txt\n$", captured.err)


def test_a_stopped_sweep_says_how_to_go_on(trainer, main_with, capsys):
    job = trainer("run", 1000)
    send_when(lambda: read_progress(job.run.folder).epochs_done, signal.SIGINT)
    with pytest.raises(SystemExit) as ended:
        main_with([job], "--sweep.seeds=0", "--data.train=a b.beton")
    assert ended.value.code == 130
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "Stopped. To go on: python -m ffcv_imagenet.sweep --sweep.seeds=0 '--data.train=a b.beton'"


def test_the_line_that_says_what_went_wrong(tmp_path):
    for text, line in [
        (
            "Traceback\n[rank1]: torch.OutOfMemoryError: CUDA\n====\nx.ChildFailedError: \n===\n",
            "torch.OutOfMemoryError: CUDA",
        ),
        ("error on rank 1: damaged\nRuntimeError: NCCL\n", "error on rank 1: damaged"),
        (
            "error on rank 0: another process has ended, or has not\n[rank1]: torch.OutOfMemoryError: CUDA\n",
            "torch.OutOfMemoryError: CUDA",
        ),
        ("no space\n\n", "no space"),
        ("", ""),
    ]:
        (tmp_path / OUTPUT).write_text("error: of an earlier start\n" + text)
        assert last_error(tmp_path, 27) == line
