"""FFCV imported the cheap way is FFCV as it imports itself, but for one dict."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numba.typed
import numpy as np
import pytest
from images import draw

#: Where a child process finds this file and the helpers.
TEST_PATHS = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "helpers")]


def types_in_ffcv():
    """The type of each name in each module of FFCV."""
    modules = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "ffcv"}
    return {m: {name: str(type(value)) for name, value in vars(module).items()} for m, module in modules.items()}


def write_and_read(folder: Path):
    """The bytes of a file that FFCV writes, and the pixels and labels that it reads from it, JPEG and raw."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import CenterCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor
    from ffcv.writer import DatasetWriter

    data = [(draw(24 + 8 * (i % 2), 32, seed=i), 10 * i) for i in range(6)]
    path = folder / "ffcv.beton"
    fields = {"image": RGBImageField(write_mode="smart", smart_threshold=24 * 32 * 3), "label": IntField()}
    DatasetWriter(str(path), fields, num_workers=1).from_indexed_dataset(data)
    pipelines = {
        "image": [CenterCropRGBImageDecoder((16, 16), 224 / 256), ToTensor()],
        "label": [IntDecoder(), ToTensor()],
    }
    loader = Loader(str(path), batch_size=6, num_workers=1, order=OrderOption.SEQUENTIAL, pipelines=pipelines)
    (images, labels) = next(iter(loader))
    return {"file": path.read_bytes().hex(), "images": images.tolist(), "labels": labels.flatten().tolist()}


@pytest.mark.slow
def test_ffcv_is_the_same_as_when_it_imports_itself(tmp_path):
    child = (
        "import json, pathlib, sys, ffcv, test_ffcv_imports as test;"
        "print(json.dumps([test.types_in_ffcv(), test.write_and_read(pathlib.Path(sys.argv[1]))]))"
    )
    (tmp_path / "stock").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", child, tmp_path / "stock"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(TEST_PATHS)},
    )
    stock_types, stock = json.loads(done.stdout.splitlines()[-1])
    ours = write_and_read(tmp_path)
    assert np.unique(ours["images"]).size > 50
    assert ours == stock

    types = types_in_ffcv()
    assert len(stock_types) > 40
    assert stock_types.keys() <= types.keys()
    other = {(m, name) for m in stock_types for name in stock_types[m] if types[m].get(name) != stock_types[m][name]}
    assert other == {("ffcv.fields.rgb_image", "IMAGE_MODES")}


def test_torch_keeps_its_threads():
    child = (
        "import torch; torch.set_num_threads(3); import ffcv_imagenet.data.ffcv_imports; print(torch.get_num_threads())"
    )
    assert subprocess.run([sys.executable, "-c", child], stdout=subprocess.PIPE, check=True).stdout == b"3\n"


def test_only_the_dict_of_the_image_modes_is_a_plain_one():
    from ffcv.fields import rgb_image
    from ffcv.memory_managers import base

    assert rgb_image.IMAGE_MODES == {"jpg": 0, "raw": 1}
    assert type(rgb_image.IMAGE_MODES) is dict
    assert rgb_image.Dict is base.Dict is numba.typed.Dict is not dict
    for name, module in list(sys.modules.items()):
        if name.startswith(("numba.", "torch.", "ffcv_imagenet.", "cv2.", "PIL.")):
            assert vars(module).get("Dict") is not dict, name
