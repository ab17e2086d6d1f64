"""The picture of a training's batch shows what the network is given."""

import numpy as np
import pytest
import torch
from PIL import Image
from whole_runs import config

from ffcv_imagenet.batch_sheet import _COLUMNS, _TEXT, draw_batch
from ffcv_imagenet.data import show
from ffcv_imagenet.distributed import World
from ffcv_imagenet.loaders import make_train_loader
from ffcv_imagenet.resolved import resolve

SIDE, ENLARGED = 32, 96


def pictures(sheet, count=16):
    """The images of a sheet, at their own size, [count, 32, 32, 3]."""
    cells = np.asarray(sheet).reshape(-1, ENLARGED + _TEXT, _COLUMNS, ENLARGED, 3).swapaxes(1, 2)
    whole = cells.reshape(-1, ENLARGED + _TEXT, ENLARGED, 3)[:count, :ENLARGED]
    return whole[:, :: ENLARGED // SIDE, :: ENLARGED // SIDE]


def decoded(settings):
    """The first batch that the loader gives."""
    start = resolve(settings, World(0, 1, 0, 1, torch.device("cpu")))
    images = next(make_train_loader(start).epoch(0, SIDE)).images
    return images.permute(0, 2, 3, 1).numpy().copy()


def test_without_augmentation_it_shows_the_decoded_images(digits, tmp_path):
    settings = config(digits, tmp_path)
    sheet, mixed = draw_batch(settings, 0)
    assert mixed == "not mixed"
    np.testing.assert_array_equal(pictures(sheet), decoded(settings))


def test_mixed_images_are_shown_mixed(digits, tmp_path):
    settings = config(digits, tmp_path, **{"augment.mixup": 1.0})
    sheet, mixed = draw_batch(settings, 0)
    share = settings_share(mixed)
    own = decoded(settings).astype(float)
    partners = own.reshape(8, 2, SIDE, SIDE, 3)[:, ::-1].reshape(own.shape)
    assert np.abs(pictures(sheet) - (share * own + (1 - share) * partners)).max() < 1


def settings_share(mixed):
    assert mixed.startswith("mixed by Mixup, ")
    return float(mixed.split()[3]) / 100


def test_the_command_draws_it(digits, tmp_path, capsys):
    recipe, sheet = tmp_path / "recipe.yaml", tmp_path / "sheet.png"
    recipe.write_text("augment: {policy: randaugment, cutmix: 1.0, erasing: 0.5}\nmodel: {arch: resnet10}\n")
    words = [f"--data.train={digits / 'train.beton'}", f"--data.val={digits / 'val.beton'}", "--training.batch_size=16"]
    words += ["--resolution.min_res=32", "--resolution.max_res=32", "--data.num_workers=1", f"--sheet={sheet}"]
    show.main(["--config-file", str(recipe), *words, "--epoch=1"])
    assert "the first training images of epoch 1, mixed by CutMix, " in capsys.readouterr().out
    assert Image.open(sheet).size == (_COLUMNS * ENLARGED, 2 * (ENLARGED + _TEXT))
    with pytest.raises(ValueError, match="--epoch: got 16, allowed are 0 to 15"):
        show.main([f"--config-file={recipe}", *words, "--epoch=16"])


def test_an_evaluation_has_no_training_batch_to_draw(digits, tmp_path):
    settings = config(digits, tmp_path, **{"training.eval_only": 1, "checkpoint.resume": "auto"})
    with pytest.raises(ValueError, match=r"training.eval_only: got 1, allowed is 0"):
        draw_batch(settings, 0)


def test_data_without_a_recipe_are_drawn_and_a_negative_seed_is_refused(digits, tmp_path, capsys):
    words = [f"--data.train={digits / 'train.beton'}", f"--data.val={digits / 'val.beton'}", "--training.batch_size=8"]
    show.main([*words, f"--sheet={tmp_path / 'sheet.png'}"])
    assert "the first training images of epoch 0, not mixed: " in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"--seed: got -1, allowed is a whole number >= 0"):
        show.main([str(digits / "train.beton"), "--seed=-1"])
