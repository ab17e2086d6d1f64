"""Running out of memory ends in one line that says what was asked for and what fits."""

import json
import re
import weakref

import pytest
import torch
from whole_runs import config

from ffcv_imagenet import experiment, models
from ffcv_imagenet.experiment import evaluate_only, train
from ffcv_imagenet.shortage import accumulated_batches
from ffcv_imagenet.train.out_of_memory import asked_bytes, is_out_of_memory, largest_fitting

#: As torch 2.14 says it.
ON_A_GPU = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.19 GiB of which 1.06 GiB is free."
    " Including non-PyTorch memory, this process has 78.12 GiB memory in use."
)


@pytest.fixture
def small_memory(monkeypatch):
    """A device that takes so many images at a time, in training and in evaluation; returns what sets that."""
    most = {True: 1 << 30, False: 1 << 30}

    def refuse(module, images):
        if len(images[0]) > most[module.training]:
            raise torch.OutOfMemoryError(ON_A_GPU)

    def build(*arguments, build=models.build_model, **options):
        model = build(*arguments, **options)
        model.register_forward_pre_hook(refuse)
        return model

    monkeypatch.setattr(experiment, "build_model", build)

    def limit(training=1 << 30, evaluation=1 << 30):
        most.update({True: training, False: evaluation})

    return limit


def test_a_training_step_that_does_not_fit_tells_the_accumulation_that_does(digits, tmp_path, small_memory):
    small_memory(training=5)
    with pytest.raises(OSError, match="out of memory") as error:
        train(config(digits, tmp_path))
    told = str(error.value)
    assert "\n" not in told
    assert "a micro-batch of 16 images of 40 x 40 px does not fit, 2.5 GiB more were asked for" in told
    assert re.search(r"; \S+ \wiB of \S+ \wiB are free \(set by .*\); --training.accumulation=4 \(micro-batches", told)
    status = json.loads((tmp_path / "runs" / "run" / "status.json").read_text())
    assert (status["state"], status["error"]) == ("failed", told)
    # The line's advice, pasted: it trains.
    train(config(digits, tmp_path, **{"training.accumulation": 4, "logging.name": "again", "training.epochs": 2}))


def test_an_accumulation_that_does_not_suffice_is_told_a_larger_one(digits, tmp_path, small_memory):
    small_memory(training=3)
    with pytest.raises(OSError, match=r"--training.accumulation=8 \(micro-batches of 2 images\) does"):
        train(config(digits, tmp_path, **{"training.accumulation": 2}))


def test_where_nothing_fits_the_line_says_so(digits, tmp_path, small_memory):
    small_memory(training=0)
    with pytest.raises(OSError, match=r"nor does a smaller one: a smaller network or smaller images may$"):
        train(config(digits, tmp_path))


def test_an_evaluation_that_does_not_fit_tells_the_batch_that_does(digits, tmp_path, small_memory):
    small_memory(evaluation=9)
    with pytest.raises(OSError, match=r"a validation batch of 30 images of 40 x 40 px does not fit.*; "
                                      r"--validation.batch_size=7 does$"):  # fmt: skip
        train(config(digits, tmp_path, **{"validation.batch_size": 30}))
    train(config(digits, tmp_path, **{"validation.batch_size": 7, "logging.name": "again"}))
    again = {"training.eval_only": 1, "checkpoint.resume": tmp_path / "runs" / "again", "validation.batch_size": 20}
    with pytest.raises(OSError, match=r"--validation.batch_size=5 does$"):
        evaluate_only(config(digits, tmp_path, **again))


def test_a_network_that_does_not_fit_is_told(digits, tmp_path, monkeypatch):
    def build(*_, **__):
        raise torch.OutOfMemoryError(ON_A_GPU)

    monkeypatch.setattr(experiment, "build_model", build)
    with pytest.raises(
        OSError, match=r"^out of memory on cpu: the network does not fit, 2.5 GiB more were asked for; "
    ):
        train(config(digits, tmp_path))
    assert not (tmp_path / "runs" / "run" / "params.json").exists()


def test_other_errors_of_torch_are_not_taken_for_it(digits, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("ffcv_imagenet.train.trainer.Trainer.fit", fail)
    with pytest.raises(RuntimeError, match="mat1"):
        train(config(digits, tmp_path))


def test_what_says_that_memory_is_short_is_recognised():
    assert is_out_of_memory(torch.OutOfMemoryError(ON_A_GPU))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    on_a_cpu = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    on_a_cpu += "allocate 25690112 bytes. Error code 12 (Cannot allocate memory)"
    assert is_out_of_memory(RuntimeError(on_a_cpu))
    assert not is_out_of_memory(ValueError("out of memory"))
    assert asked_bytes(on_a_cpu) == 25690112
    assert asked_bytes(ON_A_GPU) == round(2.5 * (1 << 30))
    assert asked_bytes("CUDA error: out of memory") is None


def test_a_failed_attempt_holds_no_memory_while_the_next_one_is_made():
    held = []

    def attempt(size):
        assert all(reference() is None for reference in held)
        tensor = torch.empty(size)
        held.append(weakref.ref(tensor))
        if size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    assert largest_fitting(attempt, [2, 8, 4, 1]) == 2
    assert len(held) == 3
    assert largest_fitting(attempt, [8, 4]) is None


def test_micro_batches_divide_the_batch_and_halve_at_least():
    assert accumulated_batches(512, 1) == [512, 256, 128, 64, 32, 16, 8, 4, 2, 1]
    assert accumulated_batches(96, 3) == [32, 16, 8, 4, 2, 1]
    assert accumulated_batches(45, 1) == [45, 15, 5, 1]
    assert accumulated_batches(36, 1, of=2) == [36, 18, 6, 2]
