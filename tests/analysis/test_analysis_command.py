"""The command: from run folders to files of results."""

import csv
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ffcv_imagenet.analysis.command import main
from ffcv_imagenet.analysis.corrupt import corrupt
from ffcv_imagenet.analysis.folders import opened
from ffcv_imagenet.analysis.measurement import DataSet, Need
from ffcv_imagenet.analysis.outputs import observe, read_images
from ffcv_imagenet.analysis.scores import predictions, summarise
from ffcv_imagenet.analysis.subject import load_subject
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.write.parameters import resolve_parameters
from ffcv_imagenet.data.write.splits import write_splits
from ffcv_imagenet.distributed import find_world
from ffcv_imagenet.models import build_model
from ffcv_imagenet.options import Given
from ffcv_imagenet.run.checkpoint import CheckpointFolder, load_checkpoint

ROOT = Path(__file__).parent.parent.parent
CPU = ["--dist.device=cpu", "--dist.cpu_threads=1"]


@pytest.fixture(scope="module")
def measured(runs, digits, digits_folder):
    """All measurements on both runs, in their folders and below ``runs/analysis``; transfer from folders of images."""
    words = [f"--run={runs / 'baseline'}", f"--run={runs / 'maxsup'}", f"--data={digits / 'val.beton'}"]
    words += [f"--train-data={digits / 'train.beton'}", "--corruptions.names=contrast,pixelate"]
    words += [f"--transfer.train={digits_folder / 'train'}", f"--transfer.test={digits_folder / 'val'}", *CPU]
    main(["all", *words])
    return words


NAMES = ("features", "transfer", "logits", "calibration", "corruptions", "plane", "groups", "gradcam")


def result(folder, name):
    return json.loads((folder / "analysis" / f"{name}.json").read_text())


def test_all_writes_json_csv_and_svg_of_every_measurement_for_each_run_and_for_the_runs_together(measured, runs):
    for folder in (runs / "baseline", runs / "maxsup"):
        for name in NAMES:
            content = result(folder, name)
            assert content["inputs"]["measurement"] == name
            assert content["results"]["summary"]
            assert content["command"][:2] == ["analysis", "all"]
            assert content["seconds"] > 0
    for name in NAMES:
        assert (runs / "analysis" / f"{name}.svg").read_text().startswith("<?xml")
        with (runs / "analysis" / f"{name}.csv").open() as file:
            assert {row["run"] for row in csv.DictReader(file)} == {"baseline", "maxsup"}


def test_what_is_measured_is_what_the_training_validated(measured, runs):
    for name in ("baseline", "maxsup"):
        last = json.loads((runs / name / "log.jsonl").read_text().splitlines()[-1])
        summary = result(runs / name, "calibration")["results"]["summary"]
        assert summary["accuracy"] == pytest.approx(last["top_1"], abs=1e-12)
        assert summary["nll"] == pytest.approx(last["val_loss"], rel=1e-5)


def test_the_file_of_logits_has_every_image_with_its_label(measured, runs, digits):
    stored = np.load(runs / "maxsup" / "analysis" / "logits.npz")
    manifest = Manifest.read(digits / "val.beton")
    assert stored["samples"].tolist() == list(range(31))
    assert np.bincount(stored["labels"]).tolist() == list(manifest.images_per_class)
    assert stored["classes"].tolist() == list(manifest.classes)
    assert stored["logits"].shape == (31, 3)
    assert stored["logits"].dtype == np.float32


def test_the_same_inputs_are_not_measured_again_and_figures_are_the_same_bytes(measured, runs, capsys):
    files = [runs / "maxsup" / "analysis" / f"{name}{end}" for name in NAMES for end in (".json", ".svg", ".csv")]
    before = [file.read_bytes() for file in files]
    together = (runs / "analysis" / "plane.svg").read_bytes()
    main(["all", *measured])
    assert capsys.readouterr().out.count("done already") == 2 * len(NAMES)
    assert [file.read_bytes() for file in files] == before
    assert (runs / "analysis" / "plane.svg").read_bytes() == together


def test_two_processes_find_what_one_finds(measured, runs, digits, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    # Without -- torchrun takes --run for one of its own options.
    words = ["-m", "--", "ffcv_imagenet.analysis", "all", *measured[1:], f"--out={tmp_path}"]
    done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        one, two = (
            json.loads((folder / f"{name}.json").read_text()) for folder in (runs / "maxsup/analysis", tmp_path)
        )
        assert two["processes"] == 2
        assert two["inputs"] == one["inputs"]
        assert two["results"]["summary"] == pytest.approx(one["results"]["summary"], rel=1e-4, abs=1e-6), name
    stored = [np.load(folder / "logits.npz") for folder in (runs / "maxsup/analysis", tmp_path)]
    np.testing.assert_array_equal(stored[0]["labels"], stored[1]["labels"])
    np.testing.assert_allclose(stored[0]["logits"], stored[1]["logits"], rtol=1e-4, atol=1e-5)


def test_transfer_takes_class_folders_and_finds_what_it_finds_in_the_beton_written_of_them(
    runs, digits, digits_folder, tmp_path, capsys
):
    write_splits(digits_folder, tmp_path, ("train", "val"), resolve_parameters(mode="raw"), num_workers=1)
    words = ["transfer", f"--run={runs / 'maxsup'}", f"--data={digits / 'val.beton'}", *CPU]
    of_folder = [f"--transfer.train={digits_folder / 'train'}", f"--transfer.test={digits_folder / 'val'}"]
    of_beton = [f"--transfer.train={tmp_path / 'train.beton'}", f"--transfer.test={tmp_path / 'val.beton'}"]
    main([*words, *of_folder, f"--out={tmp_path / 'folder'}"])
    main([*words, *of_beton, f"--out={tmp_path / 'beton'}"])
    folder, beton = (json.loads((tmp_path / name / "transfer.json").read_text()) for name in ("folder", "beton"))
    assert folder["results"] == beton["results"]
    assert folder["inputs"]["data"] == beton["inputs"]["data"]
    assert folder["files"]["target train"] == str(digits_folder / "train")
    capsys.readouterr()
    main([*words, *of_folder, f"--out={tmp_path / 'folder'}"])
    assert "done already" in capsys.readouterr().out


def test_a_folder_of_jpeg_files_is_taken_byte_for_byte_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    contents = []
    for number, name in enumerate("ab"):
        (tmp_path / "images" / name).mkdir(parents=True)
        image = Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 30, 3)).astype(np.uint8))
        image.save(tmp_path / "images" / name / "one.jpg", quality=60)
        contents.append((tmp_path / "images" / name / "one.jpg").read_bytes())
    with opened([str(tmp_path / "images")], find_world("cpu")) as found:
        (data,) = found.values()
        stored = data.path.read_bytes()
        assert all(content in stored for content in contents)
        assert data.manifest.classes == ("a", "b")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_images_that_the_runs_disagree_on_are_found_and_are_the_same_for_all_of_them(measured, runs, digits, tmp_path):
    logits = np.load(runs / "maxsup" / "analysis" / "logits.npz")["logits"]
    most = int(np.bincount(logits.argmax(axis=1)).argmax())
    state, params = load_checkpoint(runs / "maxsup"), json.loads((runs / "maxsup" / "params.json").read_text())
    # The same network, but about half of the images of its most frequent class now are of another one.
    other = (most + 1) % 3
    state["model"]["fc.bias"][other] += float(np.median(logits[:, most] - logits[:, other]))
    del state["params"], state["format"]
    CheckpointFolder(tmp_path / "run" / "checkpoints", 1, params).save(state, 1)
    words = [f"--run={runs / 'maxsup'}", f"--run={tmp_path / 'run'}", f"--data={digits / 'val.beton'}", *CPU]
    main(["logits", *words, f"--out={tmp_path / 'out'}"])
    main(["gradcam", *words, "--gradcam.among=disagreed", "--gradcam.count=3", f"--out={tmp_path / 'out'}"])
    predicted = [np.load(tmp_path / "out" / run / "logits.npz")["logits"].argmax(axis=1) for run in ("maxsup", "run")]
    disagreed = set(np.flatnonzero(predicted[0] != predicted[1]).tolist())
    assert 3 < len(disagreed) < 31
    for run in ("maxsup", "run"):
        content = json.loads((tmp_path / "out" / run / "gradcam.json").read_text())
        shown = [one["number"] for one in content["results"]["images"]]
        assert content["inputs"]["options"]["samples"] == ",".join(map(str, shown))
        assert shown == sorted(shown)
        assert len(shown) == 3
        assert set(shown) <= disagreed


def test_other_options_or_other_data_are_other_inputs(runs, digits, tmp_path, capsys):
    words = [f"--run={runs / 'baseline'}", f"--data={digits / 'val.beton'}", f"--out={tmp_path}", *CPU]
    main(["calibration", *words])
    main(["calibration", *words, "--calibration.bins=5"])
    main(["calibration", *words[:1], f"--data={digits / 'train.beton'}", *words[2:]])
    assert "done already" not in capsys.readouterr().out
    main(["calibration", *words[:1], f"--data={digits / 'train.beton'}", *words[2:]])
    assert "done already" in capsys.readouterr().out


def test_a_file_of_weights_is_measured_like_its_run(measured, runs, digits, tmp_path):
    state = load_checkpoint(runs / "maxsup")["model"]
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "theirs.pth")
    words = [f"--weights={tmp_path / 'theirs.pth'}", "--arch=resnet10", f"--data={digits / 'val.beton'}"]
    main(["features", *words, "--validation.resolution=32", "--validation.batch_size=8", *CPU])
    found = json.loads((tmp_path / "theirs_analysis" / "features.json").read_text())
    of_run = result(runs / "maxsup", "features")
    assert found["inputs"]["weights"] == of_run["inputs"]["weights"]
    assert found["results"]["val"]["d_within"] == pytest.approx(of_run["results"]["val"]["d_within"], abs=1e-9)


def test_published_arrays_give_what_the_images_in_them_give_and_mce_divides_by_a_run(measured, runs, digits, tmp_path):
    given = Given({"dist.device": "cpu"}, {})
    subject = load_subject(runs / "maxsup", given, find_world("cpu"), is_run=True, data=digits / "val.beton")
    batches = list(map(tuple, ((n, i.clone(), y.clone()) for n, i, y in read_images(subject, digits / "val.beton"))))
    numbers, images, labels = (np.concatenate([np.asarray(batch[k]) for batch in batches]) for k in range(3))
    pixels = images.transpose(0, 2, 3, 1)
    levels = [
        np.stack(
            [corrupt(image, number, "contrast", severity, 0) for image, number in zip(pixels, numbers, strict=True)]
        )
        for severity in range(1, 6)
    ]
    np.save(tmp_path / "contrast.npy", np.concatenate(levels))
    np.save(tmp_path / "labels.npy", np.tile(labels, 5))
    words = [f"--run={runs / 'maxsup'}", f"--data={digits / 'val.beton'}", f"--corruptions.published={tmp_path}", *CPU]
    words += [f"--out={tmp_path}", f"--corruptions.baseline={runs / 'maxsup'}"]
    main(["corruptions", *words])
    found = json.loads((tmp_path / "corruptions.json").read_text())
    assert found["results"]["origin"] == "published images"
    assert set(found["inputs"]["published"]) == {"contrast.npy", "labels.npy"}
    assert found["results"]["summary"]["mce"] == pytest.approx(1)
    regenerated = result(runs / "maxsup", "corruptions")["results"]["table"]
    for line in found["results"]["table"]:
        (same,) = (o for o in regenerated if (o["corruption"], o["severity"]) == (line["corruption"], line["severity"]))
        assert list(line.values())[1:] == pytest.approx(list(same.values())[1:], rel=1e-5)
    np.save(tmp_path / "contrast.npy", np.concatenate(levels).astype(np.float32))
    with pytest.raises(ValueError, match=r"contrast.npy: got float32 .*, allowed is uint8 \[5 N, 32, 32, 3\]"):
        main(["corruptions", *words])


def test_published_folders_and_betons_are_taken_whole(measured, runs, digits, digits_folder, tmp_path):
    one = load_subject(
        runs / "maxsup", Given({"dist.device": "cpu"}, {}), find_world("cpu"), is_run=True, data=digits / "val.beton"
    )
    write_splits(digits_folder, tmp_path, ("val",), resolve_parameters(mode="raw"), num_workers=1)
    passes = [observe(one, DataSet.read(tmp_path / "val.beton"), [Need(tmp_path / "val.beton", "logits")])]
    whole = dataclasses.replace(
        one,
        config=dataclasses.replace(one.config, validation=dataclasses.replace(one.config.validation, crop_ratio=1.0)),
    )
    passes.append(observe(whole, DataSet.read(tmp_path / "val.beton"), [Need(tmp_path / "val.beton", "logits")]))
    cut, taken_whole = (
        summarise(predictions(found.rows.values, found.rows.labels), 15)["nll"] for (found,) in map(dict.values, passes)
    )
    for severity in range(1, 6):
        for name in ("folders", "betons"):
            (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / "folders" / str(severity)).symlink_to(digits_folder / "val")
        for end in (".beton", ".beton.json", ".beton.mcu"):
            shutil.copy(tmp_path / f"val{end}", tmp_path / "set" / "betons" / f"{severity}{end}")
    words = ["corruptions", f"--run={runs / 'maxsup'}", f"--data={digits / 'val.beton'}", *CPU, f"--out={tmp_path}"]
    main([*words, f"--corruptions.published={tmp_path / 'set'}"])
    results = json.loads((tmp_path / "corruptions.json").read_text())
    assert {line["corruption"] for line in results["results"]["table"]} == {"clean", "folders", "betons"}
    for line in results["results"]["table"][1:]:
        assert line["nll"] == pytest.approx(taken_whole, rel=1e-6)
    assert abs(cut - taken_whole) > 1e-3
    assert len(results["inputs"]["published"]) == 10
    (tmp_path / "set" / "folders" / "3").unlink()
    shutil.copytree(digits_folder / "val" / "0", tmp_path / "set" / "folders" / "3" / "0")
    with pytest.raises(ValueError, match=r"folders/3 has other classes than the validation images"):
        main([*words, f"--corruptions.published={tmp_path / 'set'}"])


def test_regenerated_images_are_called_by_their_severities_and_what_lacks_is_said(
    measured, runs, digits, tmp_path, capsys
):
    words = ["corruptions", f"--run={runs / 'maxsup'}", f"--data={digits / 'val.beton'}", *CPU, "--corruptions.seed=1"]
    (tmp_path / "ice").mkdir()
    Image.new("RGB", (200, 200), "white").save(tmp_path / "ice" / "frost1.png")
    main([*words, f"--corruptions.frost={tmp_path / 'ice'}", "--corruptions.names=frost", f"--out={tmp_path / 'a'}"])
    main([*words, "--corruptions.severities=imagenet", "--corruptions.names=contrast", f"--out={tmp_path / 'b'}"])
    frost, other = (json.loads((tmp_path / name / "corruptions.json").read_text()) for name in "ab")
    assert frost["results"]["origin"] == "regenerated with CIFAR-10-C's severities"
    assert [line["corruption"] for line in frost["results"]["table"]] == ["clean", *["frost"] * 5]
    assert set(frost["inputs"]["frost"]) == {"frost1.png"}
    assert "notes" not in frost["results"]
    assert other["results"]["origin"].startswith(
        "regenerated with ImageNet-C's severities at 32 x 32 pixels, for which"
    )
    capsys.readouterr()
    main([*words, f"--out={tmp_path / 'c'}"])
    assert "frost is left out of the 15 corruptions" in capsys.readouterr().err
    whole = json.loads((tmp_path / "c" / "corruptions.json").read_text())["results"]
    assert whole["corruptions_in_the_mean"] == 14
    assert len(whole["table"]) == 1 + 16 * 5


def test_weights_with_other_labels_are_measured_in_the_order_of_the_data(measured, runs, digits, tmp_path):
    state = load_checkpoint(runs / "maxsup")["model"]
    theirs = ["2", "0", "1"]
    rows = [int(name) for name in theirs]
    torch.save(state | {name: state[name][rows] for name in ("fc.weight", "fc.bias")}, tmp_path / "theirs.pth")
    (tmp_path / "map.txt").write_text("".join(f"val/{name}/a b.JPEG\t{k}\r\n" for k, name in enumerate(theirs)))
    words = [f"--weights={tmp_path / 'theirs.pth'}", "--arch=resnet10", f"--data={digits / 'val.beton'}", *CPU]
    words += ["--validation.resolution=32", "--validation.batch_size=8"]
    main(["calibration", *words, f"--class-order={tmp_path / 'map.txt'}"])
    found = json.loads((tmp_path / "theirs_analysis" / "calibration.json").read_text())
    assert found["inputs"]["weights"] == result(runs / "maxsup", "calibration")["inputs"]["weights"]
    for text, message in (("2\n0\n", "not in both: 1"), ("a/1\tx\n", "line 1: got"), ("0\n0\n1\n", "two labels")):
        (tmp_path / "map.txt").write_text(text)
        with pytest.raises(ValueError, match=message):
            main(["calibration", *words, f"--class-order={tmp_path / 'map.txt'}"])


def test_a_run_whose_loss_has_a_head_of_cosines_is_loaded_with_it(runs, digits, tmp_path):
    state = load_checkpoint(runs / "maxsup")
    params = json.loads((runs / "maxsup" / "params.json").read_text())
    options = {k: v for k, v in params["config"].items() if not k.startswith("loss.")}
    params["config"] = options | {"loss.name": "ldam", "loss.scale": 20.0}
    model = build_model("resnet10", 3, cosine_scale=20)
    del state["params"], state["format"]
    CheckpointFolder(tmp_path / "checkpoints", 1, params).save(state | {"model": model.state_dict()}, 1)
    main(["plane", f"--run={tmp_path}", f"--data={digits / 'val.beton'}", *CPU])
    main(["logits", f"--run={tmp_path}", f"--data={digits / 'val.beton'}", *CPU])
    logits = np.load(tmp_path / "analysis" / "logits.npz")["logits"]
    assert 0 < np.abs(logits).max() <= 20.0001


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["feature"], r"measurement: got 'feature', allowed is features \| transfer"),
        (["features"], r"give --run=RUN_FOLDER .* or --weights=FILE"),
        (["features", "--run=x"], r"give --data=FILE.beton"),
        (["features", "--run={runs}/none", "--data={val}"], r"run folder not found: .*none"),
        (["features", "--weights={val}", "--data={val}"], r"val.beton is not a file of weights"),
        (
            ["features", "--run={runs}/maxsup", "--data={val}", "--plane.kind=x"],
            r"--plane.kind is no option of features",
        ),
        (
            ["plane", "--run={runs}/maxsup", "--data={val}", "--plane.kind=x"],
            r"plane.kind: got 'x', allowed is",
        ),
        (
            ["plane", "--run={runs}/maxsup", "--data={val}", "--plane.classes=0,0,1"],
            r"three different classes",
        ),
        (["plane", "--run={runs}/maxsup", "--data={val}", "--loss.name=maxsup"], r"--loss.name has no effect here"),
        (["transfer", "--run={runs}/maxsup", "--data={val}"], r"transfer needs --transfer.train=WHERE and"),
        (
            ["transfer", "--run={runs}/maxsup", "--data={val}", "--transfer.train={runs}", "--transfer.test={runs}"],
            r"class folder .* has no images",
        ),
        (
            ["transfer", "--run={runs}/maxsup", "--data={val}", "--transfer.train={val}", "--transfer.test={runs}/x"],
            r"runs.*/x",
        ),
        (
            ["gradcam", "--run={runs}/maxsup", "--data={val}", "--gradcam.among=disagreed"],
            r"gradcam.among: got disagreed with a single run, allowed are two runs or more",
        ),
        (
            ["gradcam", "--run={runs}/maxsup", "--run={runs}/maxsup", "--data={val}", "--gradcam.among=disagreed"],
            r"all runs predict the same class for every image",
        ),
        (
            ["gradcam", "--run={runs}/maxsup", "--data={val}", "--gradcam.among=disagreed", "--gradcam.samples=1"],
            r"gradcam.samples: got '1' with gradcam.among=disagreed, allowed is one",
        ),
        (
            ["corruptions", "--run={runs}/maxsup", "--data={val}", "--validation.resolution=64"],
            r"severities are made for 32 x 32 and 224 x 224 pixels, validation.resolution is 64: choose by",
        ),
        (
            ["corruptions", "--run={runs}/maxsup", "--data={val}", "--corruptions.names=frost"],
            r"frost needs photographs of ice: give --corruptions.frost=FOLDER",
        ),
        (
            [
                "corruptions",
                "--run={runs}/maxsup",
                "--data={val}",
                "--corruptions.published=x",
                "--corruptions.frost=y",
            ],
            r"corruptions.published is given: corruptions.severities and .frost are for regenerated images",
        ),
        (["groups", "--run={runs}/maxsup", "--data={val}", "--train-data={train}", "--groups.by=5"], r"groups.by: got"),
    ],
)
def test_a_users_mistake_is_one_line(runs, digits, words, message):
    places = {"runs": runs, "val": digits / "val.beton", "train": digits / "train.beton"}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        main([word.format(**places) for word in words] + CPU)
