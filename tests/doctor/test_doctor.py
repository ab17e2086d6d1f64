"""The doctor: what it measures, with the training's own parts, and what it says."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.read.beton_file import BetonFile
from ffcv_imagenet.doctor import measure
from ffcv_imagenet.doctor.command import main
from ffcv_imagenet.doctor.examine import Examined, share_of, training_notes
from ffcv_imagenet.doctor.machine import Disk
from ffcv_imagenet.doctor.sample import write_sample
from ffcv_imagenet.doctor.verdict import Findings, Rates
from ffcv_imagenet.options import build

SMALL = ("--model.arch=resnet10", "--resolution.min_res=32", "--resolution.max_res=40", "--training.epochs=4")
SMALL += ("--validation.resolution=32", "--training.batch_size=16", "--dist.device=cpu", "--data.num_workers=1")


@pytest.fixture
def quick(monkeypatch):
    """Everything is measured for a moment only."""
    for function in (measure.measure_reading, measure.samples_in_memory, measure.measure_loader):
        monkeypatch.setattr(function, "__defaults__", (0.05,))
    for function in (measure.measure_step, measure.measure_evaluation):
        if function.__kwdefaults__:
            monkeypatch.setitem(function.__kwdefaults__, "seconds", 0.05)
        else:
            monkeypatch.setattr(function, "__defaults__", (0.05,))


def files_below(*folders):
    return {file: file.stat().st_mtime_ns for folder in folders for file in folder.rglob("*")}


def test_the_page_says_what_the_machine_is_what_is_reached_and_what_limits(
    digits, tmp_path, capsys, monkeypatch, quick
):
    monkeypatch.chdir(tmp_path)
    before = files_below(digits, tmp_path)
    main([*SMALL, f"--data.train={digits / 'train.beton'}"])
    assert files_below(digits, tmp_path) == before  # it writes nothing there, and makes no folder of runs
    page = capsys.readouterr().out
    assert re.search(r"^  cores +\d+ cores? of ", page, re.MULTILINE)
    assert re.search(r"^  batch +16 = 1 process x 1 x 16 images; epochs: 3 at 32 px, 1 at 40 px$", page, re.MULTILINE)
    assert "96 images, 3 classes" in page
    rows = re.findall(r"^ +(\d+) px +([\d,.]+) +([\d,.]+) +([\d,.]+) +\S+ \wiB$", page, re.MULTILINE)
    assert [row[0] for row in rows] == ["32", "40"]
    assert all(float(number.replace(",", "")) > 0 for row in rows for number in row[1:])
    assert re.search(r"^  reading +in random order [\d,.]+ \(.*iB/s\), in pieces of 8 MiB [\d,.]+ ", page, re.MULTILINE)
    assert re.search(r"^  The limit is (the step|decoding on the CPU): [\d,.]+ images/s at 32 px alone", page, re.M)
    assert re.search(r"^  Time: an epoch takes .* at 32 px, .* at 40 px.*; 4 epochs: ", page, re.MULTILINE)


def test_json_has_all_numbers_and_without_data_it_draws_its_own(tmp_path, capsys, monkeypatch, quick):
    monkeypatch.chdir(tmp_path)
    main(
        [
            *SMALL,
            "--json",
            "--training.accumulation=2",
            "--config-file",
            str(Path(__file__).parents[2] / "rn_configs/digits.yaml"),
        ]
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["sample"], found["recipe"]) == (True, "digits")
    findings = found["examined"]["findings"]
    assert (findings["batch_size"], findings["accumulation"], findings["workers"]) == (16, 2, 1)
    assert findings["random_read"] is None  # a folder of the system's says nothing about a data set's disk
    assert found["verdict"]["limit"] in ("step", "decoding")
    assert found["machine"]["memory"]["total"] > 0
    assert list(tmp_path.iterdir()) == []


def test_the_drawn_images_are_as_large_as_imagenets(tmp_path):
    write_sample(tmp_path)
    train = Manifest.read(tmp_path / "train.beton")
    assert (train.num_samples, Manifest.read(tmp_path / "val.beton").num_samples) == (256, 64)
    assert 80_000 < train.num_bytes / train.num_samples < 150_000
    file = BetonFile.open(tmp_path / "train.beton")
    assert set(file.samples.image["width"]) == {500}
    assert file.index is not None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.train=nowhere.beton", "--data.val=nowhere.beton"], "data set not found: nowhere.beton"),
        (["--data.train=nowhere.beton"], "data set not found: nowhere.beton"),
        (["--data.train={alone}"], r"data.val is required: give --data.val=FILE.beton"),
        (["--processes=0"], "--processes: got 0, allowed is a whole number >= 1"),
        (["--jsom"], "unknown argument '--jsom'"),
        (
            ["--training.batch_size=16", "--processes=3", "--dist.device=cpu"],
            r"allowed is a multiple of 3 \(3 processes",
        ),
    ],
)
def test_mistakes_are_one_line(digits, tmp_path, words, message):
    for name in ("train.beton", "train.beton.json"):
        os.link(digits / name, tmp_path / name)
    with pytest.raises((ValueError, OSError), match=message) as error:
        main([word.format(alone=tmp_path / "train.beton") for word in words])
    assert "\n" not in str(error.value)


def test_a_process_takes_its_share_of_batch_and_cores():
    values = {"data.train": "t", "data.val": "v", "training.batch_size": 96, "training.accumulation": 2}
    values |= {"dist.device": "cpu", "training.max_steps": 5}
    share, world = share_of(build(TrainConfig, {key: str(value) for key, value in values.items()}), 3)
    assert (share.training.batch_size, share.training.accumulation, share.training.max_steps) == (16, 1, None)
    assert (world.size, world.local_size) == (1, 3)


def test_what_would_stop_a_training_is_noted():
    values = {"data.train": "t", "data.val": "v", "training.batch_size": 64, "checkpoint.keep": 3}
    config = build(TrainConfig, {key: str(value) for key, value in values.items()})
    rates = (Rates(32, 1, step=1.0),)
    findings = Findings("cpu", 1, 64, 1, 40, rates, file_bytes=1, raw_bytes=1, cache_bytes=1)
    examined = Examined(findings, None, {}, 1 << 28, None, None, None, ())
    disk = Disk("/runs", "ext4", "/dev/sda1", None, 1 << 40, 9 << 30)
    refused, full = training_notes(config, examined, disk, sample=False)
    assert refused == "a training refuses --training.batch_size=64: there are 40 images"
    assert full == "checkpoints need 10 GiB, /runs has 9.0 GiB free: --logging.folder=FOLDER"
    assert list(training_notes(config, examined, replace(disk, free=11 << 30), sample=True)) == []


def test_reading_is_from_the_disk_and_not_from_memory(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(os.urandom(1 << 20))
    with file.open("rb", buffering=0) as opened:
        number = opened.fileno()
        os.fsync(number)
        opened.read()
        content = np.memmap(file, np.uint8, "r")
        assert measure._resident(content, 5000, 400_000) >= 395_000
        assert measure._was_cold(number, measure._resident(content, 5000, 400_000), 395_000) is False
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
        if measure._resident(content, 0, 1 << 20):
            pytest.skip("this file system keeps what it has in memory")
        opened.seek(0)
        opened.read()
        parts = [(np.array([at], np.uint64), np.array([100_000], np.uint64)) for at in (0, 300_000, 500_000)]
        rate, cold = measure._read(number, content, parts, 10.0)
        assert rate > 0
        assert cold is True


def test_reading_ends_after_the_part_in_which_its_time_is_over(digits, monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(measure, "_READ_TOGETHER", 8)
    monkeypatch.setattr(measure.time, "perf_counter", lambda: seconds[0])
    whole = os.pread

    def slow(file, size, at):
        seconds[0] += 0.05
        return whole(file, size, at)

    monkeypatch.setattr(os, "pread", slow)
    file = BetonFile.open(digits / "train.beton")
    reading = measure.measure_reading(file, 1.0)
    assert reading.random_images == pytest.approx(20, rel=0.2)  # of 96 images, 24 in 3 parts
    before = seconds[0]
    monkeypatch.setattr(measure, "_READ_TOGETHER", 96)
    measure.measure_reading(file, 0.1)  # a part of 4.8 s: a very slow disk
    assert seconds[0] - before < 2.0


def test_the_memory_of_a_whole_micro_batch_is_counted_up_from_a_few_images():
    megabyte = 1 << 20

    def run(images, steps):
        np.ones(images * 4 * megabyte, np.uint8)  # 4 MiB each
        return 0.02 * images * steps

    def step(available):
        return measure._step_on_cpu([512, 256, 128], run, megabyte, available, 1.5)

    found = step(1 << 40)
    assert (found.rate, found.images, found.fitting) == (pytest.approx(50), 64, 512)
    base = found.memory - 512 * 5 * megabyte  # with the loader's 1 MiB of each
    assert 0 < base < 3 << 30
    assert step(base + 300 * 5 * megabyte).fitting == 256
    assert step(base).fitting is None


def test_a_step_that_does_not_even_fit_for_a_few_images_has_no_rate():
    def run(images, steps):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")

    assert measure._step_on_cpu([8], run, 0, 1 << 40, 1.0) == measure.Step(None, 0, None, None)


@pytest.mark.slow
def test_gradients_are_averaged_by_processes_of_their_own():
    assert 0 < measure.measure_all_reduce(2, 1 << 20, "cpu") < 60
