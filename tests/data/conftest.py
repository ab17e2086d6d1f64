"""Images as ImageNet's and their .beton files; FFCV is imported the cheap way before a test module here imports it."""

import pytest
from containers import BOTH, PARAMETERS
from images import draw, draw_folder
from PIL import Image

import ffcv_imagenet.data.ffcv_imports  # noqa: F401
from ffcv_imagenet.data.write.splits import write_splits

SYNSETS = ("n01440764", "n01443537", "n02084071")


@pytest.fixture(scope="session")
def synset_images(tmp_path_factory):
    """An image folder as ImageNet's; train images are called by their class, those of val by a number."""
    root = tmp_path_factory.mktemp("images")
    seed = 0
    for split, count in (("train", 4), ("val", 2)):
        for label, name in enumerate(SYNSETS):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                file = f"{name}_{number * 7 + 3}" if split == "train" else f"ILSVRC2012_val_{3 * number + label + 1:08}"
                Image.fromarray(draw(24, 32, seed)).save(root / split / name / f"{file}.JPEG", quality=90)
                seed += 1
    return root


@pytest.fixture(scope="session")
def synset_betons(synset_images, tmp_path_factory):
    """What the writer makes of the folder."""
    out = tmp_path_factory.mktemp("expected")
    write_splits(synset_images, out, BOTH, PARAMETERS, num_workers=1)
    return out


@pytest.fixture(scope="session")
def pets(tmp_path_factory):
    """A folder of 24 images for training and 6 for validation, in 2 classes."""
    return draw_folder(tmp_path_factory.mktemp("pets"), train=12, val=3)
