"""The files alone: what is kept, what is refused."""

import contextlib
import pickle
import random
import resource

import pytest
import torch
from hostile import Hostile

from ffcv_imagenet.models import build_model
from ffcv_imagenet.run.checkpoint import CheckpointFolder, load_checkpoint
from ffcv_imagenet.run.weights import load_weights

STATE = {"model": {"weight": torch.arange(5000.0)}, "epochs_done": 1}


def names(folder):
    return [file.name for file in folder.files()]


def damage(content, how, at):
    if how == "truncated":
        return content[:at]
    if how == "flipped":
        changed = bytearray(content)
        changed[at] ^= 1 << at % 8
        return bytes(changed)
    return {"empty": b"", "zeros": bytes(len(content)), "text": b"not a checkpoint\n"}[how]


def test_no_damage_is_ever_loaded(tmp_path):
    file = CheckpointFolder(tmp_path, keep=2).save(STATE, 1)
    content = file.read_bytes()
    places = random.Random(0)
    trials = [(how, 0) for how in ("empty", "zeros", "text")]
    trials += [(how, places.randrange(len(content))) for how in ("truncated", "flipped") for _ in range(200)]
    refused = 0
    for how, at in trials:
        file.write_bytes(damage(content, how, at))
        try:
            state = load_checkpoint(file)
        except ValueError as error:
            refused += 1
            message = str(error)
        else:  # A bit that means nothing, such as a date or the filling between two tensors.
            assert how == "flipped"
            assert torch.equal(state["model"]["weight"], STATE["model"]["weight"])
            assert state["epochs_done"] == 1
            continue
        assert message.startswith(f"checkpoint {file} cannot be read: ")
        assert "\n" not in message
    assert refused > 0.9 * len(trials)


def test_the_newest_undamaged_one_is_found_and_the_others_are_named(tmp_path, capsys):
    folder = CheckpointFolder(tmp_path, keep=9)
    assert folder.newest() is None
    for epoch, step in ((9999, 0), (10000, 0), (10000, 500)):
        folder.save({**STATE, "epochs_done": epoch, "step": step}, epoch, step)
    assert names(folder) == ["epoch_9999.pt", "epoch_10000.pt", "epoch_10000_step_000500.pt"]
    for number, (epoch, step) in enumerate([(10000, 500), (10000, 0), (9999, 0)]):
        state = folder.newest()
        assert (state["epochs_done"], state["step"]) == (epoch, step)
        assert capsys.readouterr().err.count("cannot be read") == number
        folder.files()[-1 - number].write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 3 checkpoints in .* can be used"):
        folder.newest()


def test_old_ones_are_removed_but_never_the_best_or_the_last(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=2)
    (tmp_path / "epoch_1_mine.pt").touch()
    (tmp_path / ".epoch_0001_step_000003.pt.partial").touch()
    for epoch in range(1, 5):
        for step in (10, 20, 30):
            folder.save(STATE, epoch - 1, step, best_epoch=1 if epoch > 1 else None)
        folder.save(STATE, epoch, best_epoch=1)
    assert names(folder) == ["epoch_0001.pt", "epoch_0003.pt", "epoch_0004.pt"]
    for step in (10, 20, 30):
        folder.save(STATE, 4, step, best_epoch=1)
    assert names(folder)[-3:] == ["epoch_0004.pt", "epoch_0004_step_000020.pt", "epoch_0004_step_000030.pt"]
    assert (tmp_path / "epoch_1_mine.pt").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_training_that_goes_back_does_not_meet_what_it_left(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=2)
    for epoch, step in ((1, 0), (2, 0), (2, 20), (3, 0), (3, 10)):
        folder.save({**STATE, "epochs_done": epoch}, epoch, step, best_epoch=1)
    folder.save({**STATE, "epochs_done": 2, "from": "anew"}, 2, 10, best_epoch=1)
    assert names(folder) == ["epoch_0001.pt", "epoch_0002.pt", "epoch_0002_step_000010.pt"]
    assert folder.newest()["from"] == "anew"


@pytest.mark.parametrize("room", [500, 10_000, 20_000])
def test_a_file_that_finds_no_room_is_the_systems_error_and_leaves_nothing(tmp_path, room):
    folder = CheckpointFolder(tmp_path, keep=2)
    folder.save(STATE, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            folder.save(STATE, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.iterdir()] == ["epoch_0001.pt"]


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_file_is_refused_in_one_line(tmp_path, zipped):
    marker, file = tmp_path / "was_here", tmp_path / "epoch_0001.pt"
    content = {"format": 2, "model": Hostile(f"touch {marker}")}
    if zipped:
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content))
    for read in (load_checkpoint, lambda path: load_weights(build_model("resnet10", 3), path)):
        with pytest.raises(ValueError, match=rf"{file} .*: damaged, or more than tensors and plain values") as caught:
            read(file)
        assert "\n" not in str(caught.value)
    assert not marker.exists()
    with contextlib.suppress(RuntimeError):
        torch.load(file, weights_only=False)  # It would have.
    assert marker.exists()
