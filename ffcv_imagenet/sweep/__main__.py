"""Train every combination of some options, side by side on this machine, and compare them in one table.

    python -m ffcv_imagenet.sweep --config-file rn_configs/rn50_16_epochs.yaml --sweep.loss=baseline,maxsup \
        --sweep.seeds=0,1,2 --sweep.gpus_per_run=8 --runs=runs/ [options of ffcv_imagenet.train]

The same command again continues where the sweep was. Exit status: 0 all runs are finished, 1 some failed, 2 a user's
mistake, 130 it was stopped.
"""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ffcv_imagenet.names import shown
from ffcv_imagenet.script import INTERRUPTED_STATUS, run_script
from ffcv_imagenet.sweep.command_line import split_words
from ffcv_imagenet.sweep.jobs import Job, make_job, sweep_seconds_left
from ffcv_imagenet.sweep.processes import is_active
from ffcv_imagenet.sweep.scheduler import Scheduler
from ffcv_imagenet.sweep.view import open_view, state_text
from ffcv_imagenet.units import duration

if TYPE_CHECKING:
    from ffcv_imagenet.sweep.plan import Plan


def main(argv: Sequence[str]) -> None:
    """Plan, run and compare; see the module."""
    split_words(argv)  # answers --help before the plan imports torch, which it asks about models and GPUs
    from ffcv_imagenet.sweep.plan import make_plan

    plan = make_plan(argv)
    jobs = [make_job(run, is_active(run.folder)) for run in plan.runs]
    print(describe(plan, jobs), flush=True)
    if plan.dry_run:
        return
    from rich.console import Console

    with open_view(Console()) as view:
        scheduler = Scheduler(
            jobs, plan.slots, view, retries=plan.options.retries, stop_seconds=plan.options.stop_seconds
        )
        stopped = scheduler.run()
    if stopped:
        print(f"Stopped. To go on: {shown(shlex.join(['python', '-m', 'ffcv_imagenet.sweep', *argv]))}")
        sys.exit(INTERRUPTED_STATUS)
    folders = [str(run.folder) for run in plan.runs if (run.folder / "params.json").is_file()]
    if folders:
        from ffcv_imagenet import report

        print()
        report.main(folders)
    if failed := [job for job in jobs if job.state == "failed"]:
        for job in failed:
            print(f"failed: {job.run.name}: {job.error}; see {shown(job.run.folder)}/output.txt", file=sys.stderr)
        sys.exit(1)


def describe(plan: Plan, jobs: Sequence[Job]) -> str:
    """The plan in words: a line per run with its state and epochs, the slots, and the time if it is known."""
    to_do = [job for job in jobs if job.state != "finished"]
    rounds = math.ceil(len(to_do) / len(plan.slots))
    epochs = sum(job.epochs_left for job in to_do)
    width = max(len(job.run.name) for job in jobs)
    lines = [
        f"{job.run.number:4d}  {job.run.name:{width}}  {job.progress.epochs_done:3d}/{job.run.epochs} epochs  "
        f"{state_text(job)}"
        for job in jobs
    ]
    lines += [f"Side by side: {len(plan.slots)} ({'; '.join(map(str, plan.slots))})"]
    lines += [f"To do: {len(to_do)} of {len(jobs)} runs, {epochs} epochs, in {rounds} round{'s' * (rounds != 1)}"]
    seconds = sweep_seconds_left(jobs, len(plan.slots))
    if seconds is None:
        lines += ["Time: not known before a first epoch"]
    elif to_do:
        lines += [f"Time: about {duration(seconds)}, by the epochs that are done"]
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
