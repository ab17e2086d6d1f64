"""User CPU seconds that each command takes to start: its help, and its work on next to nothing.

    python benchmarks/starting.py [--runs 5] [--markdown FILE]

Every run is a process of its own; its user CPU seconds are those that the system reports when it has ended, with those
of its own children. The first run of each is not counted: it may compile what numba keeps on disk. The training is that
of `rn_configs/digits.yaml` on 64 handwritten digits; it is left at its first batch.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
HELP, LITTLE, TRAINING = 0.6, 2.0, 6.0
COMMANDS = (
    "train_imagenet.py",
    "write_datasets.py",
    "-m ffcv_imagenet.sweep",
    "-m ffcv_imagenet.report",
    "-m ffcv_imagenet.data.index",
    "-m ffcv_imagenet.data.verify",
    "-m ffcv_imagenet.data.digits",
    "-m ffcv_imagenet.data.adopt",
    "-m ffcv_imagenet.data.extract",
    "-m ffcv_imagenet.data.show",
    "-m ffcv_imagenet.analysis",
    "-m ffcv_imagenet.predict",
    "-m ffcv_imagenet.export",
)


def run(words: Sequence[str]) -> float:
    """Run ``python WORDS`` from the repository's root; returns the process's user CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    if done.returncode:
        sys.exit(f"python {' '.join(words)}: status {done.returncode}\n{done.stderr.decode(errors='replace')}")
    return seconds


def train_to_first_batch(words: Sequence[str]) -> None:
    """train_imagenet.py with ``words``; the process ends when it has its first batch."""
    sys.path.insert(0, str(ROOT))
    import train_imagenet
    from ffcv_imagenet.data.read.loader import BatchLoader

    epoch = BatchLoader.epoch

    def leave(*arguments: object, **options: object) -> None:
        next(epoch(*arguments, **options))
        os._exit(0)

    BatchLoader.epoch = leave
    train_imagenet.main(words)
    sys.exit("the training ended without a batch")


def prepare(folder: Path) -> dict[str, tuple[list[str], float]]:
    """Make data and runs in ``folder``; returns the words of each row and the seconds that are to be kept."""
    images, one, data, runs = (folder / name for name in ("images", "one", "data", "runs"))
    run(["-m", "ffcv_imagenet.data.digits", str(images)])
    first = sorted((images / "train").glob("*/*.png"))[0]
    (one / "train" / "0").mkdir(parents=True)
    shutil.copy(first, one / "train" / "0")
    write = ["write_datasets.py", "--write.overwrite=1"]
    write_one = [*write, f"--data.root={one}", f"--out.dir={folder / 'out'}", "--write.splits=train"]
    run(write_one)
    run([*write, f"--data.root={images}", f"--out.dir={data}", "--write.subset=64"])
    training = [f"--data.train={data / 'train.beton'}", f"--data.val={data / 'val.beton'}", "--dist.device=cpu"]
    training += ["--config-file=rn_configs/digits.yaml"]
    short = ["--training.epochs=1", "--lr.peak_epoch=0", "--resolution.start_ramp=0", "--resolution.end_ramp=1"]
    run(["train_imagenet.py", *training, *short, f"--logging.folder={folder / 'trained'}"])
    (trained,) = (folder / "trained").iterdir()
    for loss in ("baseline", "maxsup"):
        for seed in (0, 1):
            copy_run(trained, runs / f"{loss}_{seed}", loss, seed)
    beton = str(folder / "out" / "train.beton")
    rows = {f"{command} --help": ([*command.split(), "--help"], HELP) for command in COMMANDS}
    rows |= {
        "write_datasets.py, one image": (write_one, LITTLE),
        "-m ffcv_imagenet.data.index, one image": (["-m", "ffcv_imagenet.data.index", beton], LITTLE),
        "-m ffcv_imagenet.data.verify, one image": (["-m", "ffcv_imagenet.data.verify", beton], LITTLE),
        "-m ffcv_imagenet.report, 2 losses x 2 seeds": (["-m", "ffcv_imagenet.report", str(runs)], LITTLE),
        "train_imagenet.py to its first batch": (
            [__file__, "--train", *training, f"--logging.folder={folder / 'first'}", "--checkpoint.resume=auto"],
            TRAINING,
        ),
    }
    return rows


def copy_run(source: Path, target: Path, loss: str, seed: int) -> None:
    """A run folder as another loss and seed would leave it, with a slightly other top-1."""
    shutil.copytree(source, target)
    params = json.loads((target / "params.json").read_text())
    params["config"] |= {"loss.name": loss, "training.seed": seed}
    (target / "params.json").write_text(json.dumps(params))
    lines = [json.loads(line) for line in (target / "log.jsonl").read_text().splitlines()]
    lines[-1]["top_1"] = 0.5 + 0.01 * seed + 0.02 * (loss == "maxsup")
    (target / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def table(rows: dict[str, tuple[list[str], float]], runs: int) -> list[str]:
    """Measure all rows in turn, ``runs`` times and once more; Markdown lines."""
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(runs + 1):
        for name, (words, _) in rows.items():
            seconds[name].append(run(words))
    lines = ["| python ... | user CPU seconds | |", "|---|---|---|"]
    for name, (_, limit) in rows.items():
        values = seconds[name][1:]
        median = statistics.median(values)
        verdict = f"below {limit:g}: {'met' if median < limit else '**not met**'}"
        lines.append(f"| {name} | {median:.2f} ({min(values):.2f} to {max(values):.2f}) | {verdict} |")
    return lines


def main() -> None:
    if sys.argv[1:2] == ["--train"]:
        train_to_first_batch(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    now, load = datetime.datetime.now(datetime.UTC), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        lines = table(prepare(Path(folder)), arguments.runs)
    lines[:0] = [
        f"{now:%Y-%m-%d %H:%M} UTC, {processor()}, {len(os.sched_getaffinity(0))} cores, load average before the start "
        f"{load:.2f}; median (min to max) of {arguments.runs} runs.",
        "",
    ]
    print("\n".join(lines))
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines) + "\n")


def processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].split(":", 1)[1].strip() if names else "unknown processor"


if __name__ == "__main__":
    main()
