"""Training on some of the samples of a file."""

import json

import numpy as np
import pytest
import torch
from whole_runs import config

from ffcv_imagenet.data.format.beton import read_samples
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.format.subset import read_subset
from ffcv_imagenet.distributed import World
from ffcv_imagenet.experiment import train
from ffcv_imagenet.loaders import make_train_loader
from ffcv_imagenet.resolved import resolve

SHORT = {"training.epochs": 1, "lr.peak_epoch": "none", "resolution.end_ramp": 0}


@pytest.mark.parametrize("name", ["list.txt", "list.npy"])
def test_only_the_listed_samples_are_trained_on(digits, tmp_path, name):
    wanted = np.random.default_rng(0).permutation(Manifest.read(digits / "train.beton").num_samples)[:40]
    file = tmp_path / name
    np.save(file, wanted) if name.endswith("npy") else file.write_text("".join(f"{n}\n" for n in wanted))
    start = resolve(config(digits, tmp_path, **{"data.subset": file}), World(0, 1, 0, 1, torch.device("cpu")))
    labels = read_samples(digits / "train.beton").label
    assert start.train_data.num_samples == 40
    assert list(start.train_data.images_per_class) == np.bincount(labels[wanted], minlength=3).tolist()
    loader = make_train_loader(start)
    visited = loader.order.sample_order(0)
    assert len(visited) == 32  # two batches of 16
    assert set(visited) <= set(wanted)
    assert set(visited) != set(loader.order.sample_order(1))
    got = [label for batch in loader.epoch(0, 32) for label in batch.labels.tolist()]
    assert got == labels[visited].tolist()


def test_listed_samples_are_repeated(digits, tmp_path):
    (tmp_path / "list.txt").write_text("\n".join(map(str, range(5, 45))))
    options = {"data.subset": tmp_path / "list.txt", "data.repeats": 2}
    visited = make_train_loader(
        resolve(config(digits, tmp_path, **options), World(0, 1, 0, 1, torch.device("cpu")))
    ).order.sample_order(0)
    samples, counts = np.unique(visited, return_counts=True)
    assert set(counts) == {2}
    assert set(samples) <= set(range(5, 45))


def test_a_run_continues_with_the_same_samples_only(digits, tmp_path):
    file, other = tmp_path / "list.txt", tmp_path / "other.txt"
    file.write_text("\n".join(map(str, range(32))))
    other.write_text("\n".join(map(str, reversed(range(32)))))
    train(config(digits, tmp_path, **(SHORT | {"data.subset": file})))
    params = json.loads((tmp_path / "runs" / "run" / "params.json").read_text())
    assert params["config"]["data.subset"] == str(file)
    again = SHORT | {"checkpoint.resume": "auto"}
    train(config(digits, tmp_path, **(again | {"data.subset": other})))  # the same samples
    other.write_text("\n".join(map(str, range(1, 33))))
    for subset in (other, "none"):
        with pytest.raises(ValueError, match="train_data"):
            train(config(digits, tmp_path, **(again | {"data.subset": subset})))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "lists no sample"),
        ("1\n2\n1\n", "lists the sample 1 twice"),
        ("1\n10\n", r"lists the sample 10, allowed is 0 to 9"),
        ("1\n-2\n", r"line 2: got -2, allowed is a sample's number"),
        ("1\nn01440764\n", r"line 2: got n01440764, allowed"),
        (np.zeros((2, 2), np.int64), r"holds int64 \(2, 2\), allowed is a list of whole numbers"),
        (np.zeros(2), r"holds float64 \(2,\)"),
        (np.array([-1]), "lists the sample -1"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(tmp_path, text, reason):
    file = tmp_path / ("list.txt" if isinstance(text, str) else "list.npy")
    file.write_text(text) if isinstance(text, str) else np.save(file, text)
    with pytest.raises(ValueError, match=f"data.subset: .*{reason}"):
        read_subset(file, 10)


def test_a_list_that_is_not_there_or_no_array_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data.subset: file not found: .*list.txt"):
        read_subset(tmp_path / "list.txt", 10)
    (tmp_path / "list.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"list.npy is not an .npy file"):
        read_subset(tmp_path / "list.npy", 10)


def test_large_pieces_of_a_file_cannot_be_read_for_some_of_its_samples(digits, tmp_path):
    with pytest.raises(ValueError, match=r"data.order: got quasi_random, allowed with data.subset is random"):
        config(digits, tmp_path, **{"data.subset": "list.txt", "data.order": "quasi_random"})
