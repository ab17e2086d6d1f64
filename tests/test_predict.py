"""Classes of single images, and networks for other programs."""

import csv
import json

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from ffcv_imagenet import export, predict
from ffcv_imagenet.data.write.pages import page_size_of_pixels
from ffcv_imagenet.models import build_model
from ffcv_imagenet.run.checkpoint import load_checkpoint
from ffcv_imagenet.run.safetensors import read_safetensors


@pytest.fixture(scope="module")
def run(runs):
    return runs / "maxsup"


def reference(run, state, file):
    """Probabilities by PIL and torchvision alone, of an image of 40 x 40 pixels at 32."""
    model = torchvision.models.resnet.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=3).eval()
    model.load_state_dict(state)
    config = json.loads((run / "params.json").read_text())["config"]
    side = round(40 * config["validation.crop_ratio"])
    first = (40 - side) // 2
    image = Image.open(file).convert("RGB").crop((first, first, first + side, first + side))
    pixels = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)) / 255
    x = torch.from_numpy((pixels - config["data.mean"]) / config["data.std"]).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        return model(x).softmax(1)[0].numpy()


def test_predictions_are_those_of_torchvision_and_pil(run, digits_folder, tmp_path, capsys):
    files = sorted((digits_folder / "val" / "1").iterdir())[:3]
    words = [f"--run={run}", "--device=cpu", f"--csv={tmp_path / 'a.csv'}", f"--json={tmp_path / 'a.json'}", "--top=2"]
    predict.main([*words, *map(str, files)])
    assert len([line for line in capsys.readouterr().out.splitlines() if "%, " in line]) == 3
    found = json.loads((tmp_path / "a.json").read_text())
    assert [one["image"] for one in found] == list(map(str, files))
    for one, file in zip(found, files, strict=True):
        expected = reference(run, load_checkpoint(run)["model"], file)
        assert [entry["label"] for entry in one["classes"]] == np.argsort(-expected)[:2].tolist()
        got = [entry["probability"] for entry in one["classes"]]
        np.testing.assert_allclose(got, np.sort(expected)[::-1][:2], atol=0.02)  # PIL rounds between its two passes
        assert all(entry["class"] == str(entry["label"]) for entry in one["classes"])
    with (tmp_path / "a.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6


def test_a_folder_is_searched_and_other_files_are_named(digits_folder, tmp_path):
    assert len(predict.find_images([digits_folder / "val"])) == 31
    with pytest.raises(FileNotFoundError, match=r"image not found: .*none.png"):
        predict.find_images([tmp_path / "none.png"])
    with pytest.raises(FileNotFoundError, match="no image in"):
        predict.find_images([tmp_path])
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"text.png is no image that can be read"):
        page_size_of_pixels([tmp_path / "text.png"])


def test_an_exported_state_dict_loads_into_plain_torchvision(run, tmp_path):
    export.main([f"--run={run}", f"--out={tmp_path / 'a.pth'}"])
    model = torchvision.models.resnet.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=3)
    model.load_state_dict(torch.load(tmp_path / "a.pth", weights_only=True))
    told = json.loads((tmp_path / "a.pth.json").read_text())
    assert (told["architecture"], told["num_classes"], told["resolution"]) == ("resnet10", 3, 32)
    assert told["classes"] == ["0", "1", "2"]


def test_exported_safetensors_have_the_same_tensors(run, tmp_path):
    export.main([f"--run={run}", "--format=safetensors", f"--out={tmp_path / 'a.safetensors'}"])
    found, state = read_safetensors(tmp_path / "a.safetensors"), load_checkpoint(run)["model"]
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_blur_pooling_is_not_exported_as_if_torchvision_had_it(tmp_path):
    torch.save(build_model("resnet18", 3, blurpool=True).state_dict(), tmp_path / "a.pt")
    words = [f"--weights={tmp_path / 'a.pt'}", "--arch=resnet18", f"--out={tmp_path / 'b.pth'}"]
    for given in ([], ["--blurpool"]):  # the names in the file tell it
        export.main([*words[:2], *given, "--format=safetensors", f"--out={tmp_path / 'b.safetensors'}"])
        with pytest.raises(ValueError, match="torchvision has no blur pooling"):
            export.main([*words, *given])


def test_onnx_computes_the_same_logits(run, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    export.main([f"--run={run}", "--format=onnx", f"--out={tmp_path / 'a.onnx'}"])
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    model = build_model("resnet10", 3).eval()
    model.load_state_dict(load_checkpoint(run)["model"])
    images = torch.randn(5, 3, 32, 32)  # another batch than the one it was traced with
    with torch.no_grad():
        np.testing.assert_allclose(
            session.run(None, {"images": images.numpy()})[0], model(images), atol=1e-3, rtol=1e-3
        )
