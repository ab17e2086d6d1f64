"""Weights of other programs: every container that is known, and none that runs anything."""

import argparse
import json
import os

import numpy as np
import pytest
import torch

from ffcv_imagenet.models import build_model
from ffcv_imagenet.run.safetensors import read_safetensors, write_safetensors
from ffcv_imagenet.run.weights import load_weights, read_weights

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("resnet10", 3).eval()


def deit(state):
    """A checkpoint of DeiT's main.py: the average lies next to the weights, the options are a Namespace."""
    average = {key: value + 1 if value.is_floating_point() else value for key, value in state.items()}
    return {
        "model": state,
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "epoch": 299,
        "model_ema": average,
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(lr=1e-3, opt_betas=None, batch_size=256),
    }


def lightning(state):
    """A checkpoint of PyTorch Lightning, with a metric and a criterion next to the network."""
    own = {f"model.{key}": value for key, value in state.items()}
    others = {"criterion.weight": torch.ones(3), "val_acc.total": torch.tensor(0)}
    return {"epoch": 1, "state_dict": own | others, "hyper_parameters": {"lr": 0.1}}


CONTAINERS = {
    "flat": lambda s: s,
    "ddp": lambda s: {f"module.{key}": value for key, value in s.items()},
    "compiled in ddp": lambda s: {f"module._orig_mod.{key}": value for key, value in s.items()},
    "deit": deit,
    "lightning": lightning,
    "numpy numbers": lambda s: {"model": s, "best": np.float64(0.7), "embed": np.zeros(3, np.float32)},
    "best": lambda s: {"state_dict": {}, "state_dict_best": s},
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_the_logits_of_its_network(model, tmp_path, name):
    torch.save(CONTAINERS[name](model.state_dict()), tmp_path / "theirs.pth")
    ours = build_model("resnet10", 3)
    told = load_weights(ours, tmp_path / "theirs.pth", "resnet10")
    assert torch.equal(ours.eval()(IMAGES), model(IMAGES))
    assert told.startswith(f"{len(model.state_dict())} tensors loaded from {tmp_path / 'theirs.pth'}")
    assert "\n" not in told


def test_what_is_not_the_networks_is_named(model, tmp_path):
    torch.save(lightning(model.state_dict()), tmp_path / "last.ckpt")
    told = read_weights(tmp_path / "last.ckpt").told
    assert "renamed (without model.)" in told
    assert "2 left out that are not the network's (criterion.weight, val_acc.total)" in told


def test_the_average_of_the_weights_is_taken_when_asked_for(model, tmp_path):
    torch.save(deit(model.state_dict()), tmp_path / "theirs.pth")
    found = read_weights(tmp_path / "theirs.pth", average=True).state
    assert torch.equal(found["fc.weight"], model.state_dict()["fc.weight"] + 1)
    torch.save(model.state_dict(), tmp_path / "flat.pth")
    with pytest.raises(ValueError, match=r"flat.pth has no average of weights \(model_ema\)"):
        read_weights(tmp_path / "flat.pth", average=True)


def test_safetensors_give_the_logits_of_their_network(model, tmp_path):
    write_safetensors(tmp_path / "a.safetensors", model.state_dict())
    ours = build_model("resnet10", 3)
    load_weights(ours, tmp_path / "a.safetensors")
    assert torch.equal(ours.eval()(IMAGES), model(IMAGES))


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]
)
def test_a_tensor_of_every_type_and_shape_comes_back(tmp_path, dtype):
    tensors = {str(shape): torch.ones(shape).cumsum(0).to(dtype) for shape in ((5,), (2, 3), (0, 4), (1, 1, 1))}
    tensors["a number"] = torch.tensor(3).to(dtype)
    write_safetensors(tmp_path / "a.safetensors", tensors)
    found = read_safetensors(tmp_path / "a.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) and found[name].dtype == dtype for name in tensors)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        (1000).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"nope",
        (2).to_bytes(8, "little") + b"[]",
        *(
            len(head).to_bytes(8, "little") + head + bytes(8)
            for head in (
                json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()
                for dtype, shape, offsets in (
                    ("F32", [2], [0, 12]),
                    ("F32", [3], [0, 8]),
                    ("F32", [-2], [0, -8]),
                    ("F99", [2], [0, 8]),
                    ("F32", [2], [0]),
                    ("F32", "2", [0, 8]),
                )
            )
        ),
    ],
)
def test_damaged_safetensors_are_refused_in_one_line(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"a.safetensors is not a file of weights: damaged"):
        read_weights(tmp_path / "a.safetensors")


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_namespace_that_holds_code_runs_nothing(model, tmp_path):
    marker = tmp_path / "was_here"
    torch.save({"model": model.state_dict(), "args": argparse.Namespace(x=Hostile(marker))}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="more than tensors and plain values"):
        read_weights(tmp_path / "a.pth")
    assert not marker.exists()
