"""What a start settles before anything is built."""

import json
import os
import shutil

import pytest
import torch
import torch._inductor.config

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.distributed import World
from ffcv_imagenet.manifests import read_manifests
from ffcv_imagenet.options import build
from ffcv_imagenet.resolved import resolve


@pytest.mark.parametrize(
    ("train", "val", "messages"),
    [
        ("val", "train", ["data.train: got {val}, which was written as the split val, allowed is the split train",
                          "data.val: got {train}, which was written as the split train, allowed is the split val"]),
        ("train", "train", ["data.val: got {train}", "hold the same images: {train} and {train}"]),
        ("val", "val", ["data.train: got {val}", "hold the same images: {val} and {val}"]),
        ("train", "copy", ["hold the same images: {train} and {copy}"]),
    ],
)  # fmt: skip
def test_validation_images_are_not_trained_on_unless_on_purpose(digits, tmp_path, capsys, train, val, messages):
    files = {split: digits / f"{split}.beton" for split in ("train", "val")} | {"copy": tmp_path / "copy.beton"}
    shutil.copy(files["train"], files["copy"])  # the same images, which say that they are for validation
    manifest = json.loads((digits / "train.beton.json").read_text()) | {"split": "val"}
    (tmp_path / "copy.beton.json").write_text(json.dumps(manifest))
    values = {"data.train": str(files[train]), "data.val": str(files[val])}
    with pytest.raises(ValueError, match=r"--data.on_wrong_split=warn to go on") as error:
        read_manifests(build(TrainConfig, values))
    assert all(message.format(**files) in str(error.value) for message in messages)
    data = read_manifests(build(TrainConfig, values | {"data.on_wrong_split": "warn"}))
    assert [manifest.num_samples for manifest in data] == [31 if name == "val" else 96 for name in (train, val)]
    shown = capsys.readouterr().err
    assert shown.startswith("warning: ")
    assert all(message.format(**files) in shown for message in messages)


@pytest.mark.parametrize(
    ("classes", "reason"),
    [("01x", "1 missing (2); 1 not in data.train (x)"), ("102", "they are in another order")],
)
def test_validation_images_of_other_classes_are_refused_with_what_differs(digits, tmp_path, classes, reason):
    shutil.copy(digits / "val.beton", tmp_path)
    manifest = json.loads((digits / "val.beton.json").read_text()) | {"classes": list(classes)}
    (tmp_path / "val.beton.json").write_text(json.dumps(manifest))
    train, val = digits / "train.beton", tmp_path / "val.beton"
    with pytest.raises(ValueError) as error:
        read_manifests(build(TrainConfig, {"data.train": str(train), "data.val": str(val)}))
    assert str(error.value) == f"data.val: got {val} with 3 classes, allowed are the 3 of {train}: {reason}"


def test_every_choice_of_the_machine_is_made_once(digits):
    values = {"data.train": str(digits / "train.beton"), "data.val": str(digits / "val.beton"), "data.decode": "auto"}
    start = resolve(build(TrainConfig, values), World(0, 1, 0, 1, torch.device("cpu")))
    assert (start.precision, start.compile, start.train_decoder, start.val_decoder) == ("fp32", "off", "cpu", "cpu")
    assert (start.num_classes, start.train_data.num_samples, start.val_data.num_samples) == (3, 96, 31)
    evaluation = build(TrainConfig, {"data.val": values["data.val"], "training.eval_only": 1, "model.weights": "w"})
    assert resolve(evaluation, start.world).train_data is None


def test_the_channels_statistics_reach_the_model(digits):
    values = {"data.train": str(digits / "train.beton"), "data.val": str(digits / "val.beton")}
    values |= {"data.mean": "0.1,0.2,0.3", "data.std": "0.5,0.25,1"}
    pixels = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    start = resolve(build(TrainConfig, values), World(0, 1, 0, 1, torch.device("cpu")))
    assert start.make_normalize()(pixels)[0, :, 0, 0].tolist() == pytest.approx([1.8, 3.2, 0.7])


def test_the_processes_of_a_machine_share_its_cores(digits, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(16))
    values = {"data.train": str(digits / "train.beton"), "data.val": str(digits / "val.beton")}
    cuda, cpu = torch.device("cuda", 0), torch.device("cpu")

    def start(processes, device):
        return resolve(build(TrainConfig, values), World(0, processes, 0, processes, device))

    assert [start(1, device).decoding_cores for device in (cuda, cpu)] == [14, 16]  # two start the GPU's kernels
    assert [start(processes, cuda).decoding_cores for processes in (4, 8)] == [2, 1]

    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    monkeypatch.delenv("TORCHINDUCTOR_COMPILE_THREADS", raising=False)
    with torch._inductor.config.patch(compile_threads=32):
        start(4, cpu).set_up_torch()
        assert torch._inductor.config.compile_threads == 4
        monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "2")
        torch._inductor.config.compile_threads = 2  # as torch has read it
        start(4, cpu).set_up_torch()
        assert torch._inductor.config.compile_threads == 2


def test_cuda_graphs_on_several_gpus_are_refused_before_anything_is_built(digits, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    values = {"data.train": str(digits / "train.beton"), "data.val": str(digits / "val.beton")}
    values |= {"training.compile": "max-autotune"}
    with pytest.raises(ValueError, match=r"training.compile: got max-autotune, allowed on several GPUs is "):
        resolve(build(TrainConfig, values), World(0, 2, 0, 2, torch.device("cuda", 0)))


def test_a_run_of_a_network_of_timms_has_one_folder():
    files = {"data.train": "train.beton", "data.val": "val.beton"}
    options = files | {"model.arch": "timm/deit_small_patch16_224", "loss.name": "maxsup", "training.seed": 3}
    assert build(TrainConfig, options).default_name("deit_s") == "deit_s_timm_deit_small_patch16_224_maxsup_seed3"
