"""The package in a program of one's own."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from whole_runs import config

import ffcv_imagenet
from ffcv_imagenet.analysis.outputs import outputs, read_images
from ffcv_imagenet.analysis.subject import load_subject
from ffcv_imagenet.distributed import World
from ffcv_imagenet.experiment import train
from ffcv_imagenet.options import Given
from ffcv_imagenet.run.checkpoint import load_checkpoint

ROOT = Path(__file__).parent.parent


def test_a_run_gives_its_model_its_transform_and_the_names_of_its_classes(runs, digits, digits_folder):
    network = ffcv_imagenet.load(str(runs / "maxsup"))
    assert network.classes == network.class_names == ("0", "1", "2")
    subject = load_subject(runs / "maxsup", Given({}, {}), World(0, 1, 0, 1, torch.device("cpu")), is_run=True)
    raw = ffcv_imagenet.manifest(digits / "val.beton")
    assert (raw.num_samples, raw.classes) == (31, ("0", "1", "2"))
    # The second image of the file, as a PNG and as pixels: the .beton has some of its images as JPEG, which differ.
    file = sorted((digits_folder / "val" / "0").iterdir())[1]
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB"))
        prepared = [network.transform(given) for given in (image, pixels, str(file), file)]
    assert all(torch.equal(prepared[0], other) for other in prepared)
    assert prepared[0].shape == (3, 32, 32)
    batch = next(outputs(subject, read_images(subject, digits / "val.beton")))
    with torch.no_grad():
        logits = network.model(prepared[0][None])
    assert not network.model.training
    assert logits.argmax() == batch.logits[1].argmax()
    assert next(network.model.parameters()).requires_grad


def test_the_transform_is_what_the_loader_of_raw_images_does(digits_folder, tmp_path):
    from ffcv_imagenet.data.write.parameters import resolve_parameters
    from ffcv_imagenet.data.write.splits import write_splits
    from ffcv_imagenet.library import Transform

    write_splits(digits_folder, tmp_path, ("val",), resolve_parameters(mode="raw"), num_workers=1)
    mean, std = (0.1, 0.5, 0.2), (0.3, 0.2, 0.1)
    files = [file for label in "012" for file in sorted((digits_folder / "val" / label).iterdir())]
    for resize, ratio in (("triangle", 0.875), ("area", 0.5), ("bicubic", 1.0)):
        transform = Transform(24, ratio, resize, mean, std)
        loader = ffcv_imagenet.val_loader(
            str(tmp_path / "val.beton"), batch_size=31, crop_ratio=ratio, resize=resize, num_workers=1
        )
        (batch,) = loader.epoch(0, 24)
        assert torch.equal(ffcv_imagenet.Normalize(mean, std)(batch.images), torch.stack([*map(transform, files)]))


def test_mistakes_in_what_is_transformed_and_loaded_are_named(runs, tmp_path):
    transform = ffcv_imagenet.load(runs / "maxsup").transform
    with pytest.raises(ValueError, match=r"got pixels \[8, 8\] uint8, allowed are \[H, W, 3\] uint8"):
        transform(np.zeros((8, 8), np.uint8))
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match=r"a.png is no image that can be read"):
        transform(tmp_path / "a.png")
    for place in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError):
            ffcv_imagenet.load(place)
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        ffcv_imagenet.lod  # noqa: B018


def test_a_checkpoint_tells_its_classes_where_its_data_are_gone(digits, tmp_path):
    for split in ("train", "val"):
        for name in (f"{split}.beton", f"{split}.beton.json"):
            text = (digits / name).read_bytes()
            (tmp_path / name).write_bytes(text.replace(b'"class_names": []', b'"class_names": ["zero", "one", "two"]'))
    one = {"training.epochs": 1, "lr.peak_epoch": "none", "resolution.max_res": 32, "resolution.end_ramp": "none"}
    train(config(tmp_path, tmp_path, **one))
    for file in tmp_path.glob("*.beton*"):
        file.unlink()
    file = tmp_path / "runs" / "run" / "checkpoints" / "epoch_0001.pt"
    assert load_checkpoint(file)["class_names"] == ["zero", "one", "two"]
    for place in (tmp_path / "runs" / "run", file):
        network = ffcv_imagenet.load(place)
        assert (network.classes, network.class_names) == (("0", "1", "2"), ("zero", "one", "two"))
        assert (network.transform.resolution, network.transform.crop_ratio) == (40, 0.875)


def test_the_processes_of_a_training_share_the_images_of_a_step(digits):
    def samples(**options):
        loader = ffcv_imagenet.train_loader(digits / "train.beton", num_workers=1, **options)
        return [loader.order.sample_order(3)[i * loader.batch_size :][: loader.batch_size] for i in range(len(loader))]

    alone = samples(batch_size=32, seed=5)
    shared = [samples(batch_size=16, seed=5, rank=rank, world_size=2) for rank in (0, 1)]
    assert len(alone) == 3
    assert [set(step) for step in alone] == [{*a, *b} for a, b in zip(*shared, strict=True)]


def test_the_program_on_the_page_trains(digits, runs, tmp_path):
    """As printed, on other files and for less time; and the number of torch's threads stays what it was."""
    page = (ROOT / "docs" / "library.md").read_text()
    programs = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(programs) == 3
    text = "\n".join(programs)
    assert sum(bool(line.strip()) for line in programs[1].splitlines()) <= 15
    for there, here in (
        ("/data/imagenet/", f"{digits}/"), ("runs/NAME", str(runs / "baseline")), ("dog.jpg", "image.png"),
        ("batch_size=256", "batch_size=32"), (', device="cuda"', ""), ("range(16)", "range(1)"), (".cuda()", ""),
        ("resolution=160", "resolution=32"), ("resolution=256", "resolution=32"),
    ):  # fmt: skip
        assert there in text, there
        text = text.replace(there, here)
    Image.new("RGB", (50, 40), "red").save(tmp_path / "image.png")
    program = f"import torch\nthreads = torch.get_num_threads()\n{text}\nassert torch.get_num_threads() == threads\n"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[012]\ntop-1: \d+\.\d+ %\n", done.stdout)
