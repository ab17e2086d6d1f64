"""Every shipped recipe is read strictly, builds its model, and takes a step in a shrunk copy."""

import math
import re
from pathlib import Path

import pytest
import torch

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.experiment import train
from ffcv_imagenet.losses import LOSSES
from ffcv_imagenet.models import build_model
from ffcv_imagenet.options import build, flatten, read_yaml
from ffcv_imagenet.report.paper import published_figures
from ffcv_imagenet.train.optim import parameter_groups

RECIPES = sorted((Path(__file__).parent.parent / "rn_configs").glob("*.yaml"))
#: The table of the paper's losses in rn_configs/README.md.
PAPERS_LOSSES = [
    line for line in RECIPES[0].with_name("README.md").read_text().splitlines() if "| `--loss.name=" in line
]
DATA = {"data.train": "train.beton", "data.val": "val.beton"}
RAMPS = {16: (11, 13), 24: (17, 20), 32: (23, 27), 40: (29, 34), 56: (41, 48), 88: (65, 76)}


def read(name):
    return build(TrainConfig, read_yaml(next(r for r in RECIPES if r.stem == name)) | DATA)


def test_all_recipes_are_there():
    published = {f"rn{depth}_{epochs}_epochs" for depth in (18, 50) for epochs in RAMPS}
    assert {r.stem for r in RECIPES} == published | {
        "rn18_maxsup_paper",
        "rn50_maxsup_paper",
        "rn101_maxsup_paper",
        "mobilenet_v2_maxsup_paper",
        "rn50_maxsup_table10",
        "rn50_maxsup_released",
        "rn50_torchvision",
        "rn50_torchvision_v2",
        "rn50_rsb_a2",
        "rn50_rsb_a3",
        "deit_s",
        "deit_s_no_mixing",
        "cifar10_fast",
        "cifar10_rn18",
        "cifar10_rn50_c",
        "cifar10_lt_rn32",
        "cifar10_lt_rn32_drw",
        "finetune_cub",
        "finetune_cars",
        "digits",
        "imagenette",
        "imagenette64",
        "cifar32",
    }


@pytest.mark.parametrize("epochs", RAMPS)
@pytest.mark.parametrize(("depth", "lr", "batch", "decay"), [(50, 1.7, 4096, 1e-4), (18, 0.5, 1024, 5e-5)])
def test_published_recipes(depth, epochs, lr, batch, decay):
    recipe = read(f"rn{depth}_{epochs}_epochs")
    assert recipe.model.arch == f"resnet{depth}"
    assert recipe.model.blurpool
    assert recipe.training.epochs == epochs
    assert recipe.training.batch_size == recipe.lr.base_batch == batch
    assert (recipe.training.weight_decay, recipe.make_optimizer().momentum) == (decay, 0.9)
    assert recipe.make_lr()(2) == lr
    assert (recipe.resolution.min_res, recipe.resolution.max_res) == (160, 192)
    assert (recipe.resolution.start_ramp, recipe.resolution.end_ramp) == RAMPS[epochs]
    assert recipe.validation.resolution == 256
    assert recipe.validation.flip_tta


@pytest.mark.parametrize("depth", [18, 50, 101])
def test_the_papers_resnets_differ_in_depth_only(depth):
    recipe, other = (flatten(read(f"rn{d}_maxsup_paper")) for d in (depth, 50))
    assert recipe.pop("model.arch") == f"resnet{depth}"
    assert recipe == {key: value for key, value in other.items() if key != "model.arch"}


def test_the_papers_other_recipes():
    mobile, table10 = read("mobilenet_v2_maxsup_paper"), read("rn50_maxsup_table10")
    assert (mobile.model.arch, mobile.training.epochs, mobile.training.weight_decay) == ("mobilenet_v2", 300, 4e-5)
    assert [mobile.make_lr()(e) for e in (0, 0.5, 1, 2)] == pytest.approx([0.045, 0.045, 0.0441, 0.043218])
    assert (table10.training.epochs, table10.training.batch_size) == (90, 512)
    assert [table10.make_lr()(e) for e in (0, 30, 60)] == pytest.approx([0.1, 0.01, 0.001])


@pytest.mark.parametrize("line", PAPERS_LOSSES)
def test_every_loss_of_the_papers_table_has_its_options(line):
    """As rn_configs/README.md says them."""
    options = dict(word.removeprefix("--").split("=") for word in re.findall(r"--loss[.\w]*=[\w.-]+", line))
    config = build(TrainConfig, read_yaml(RECIPES[-1].with_name("rn50_maxsup_paper.yaml")) | DATA | options)
    scheduled = [config.make_loss().scheduled(epoch, 200) for epoch in (0.0, 200.0)]
    if config.loss.name == "label_smoothing":
        assert scheduled == [{"smoothing": pytest.approx(0.1)}, {"smoothing": pytest.approx(0.2)}]
    if config.loss.name == "maxsup":
        assert scheduled == [{"alpha": pytest.approx(0.1)}, {"alpha": pytest.approx(0.2)}]


def test_the_papers_losses_are_those_of_its_table():
    names = re.findall(r"`--loss.name=(\w+)", "\n".join(PAPERS_LOSSES))
    assert names == list(dict.fromkeys(row.loss for row in published_figures()))


def test_the_papers_recipes():
    paper, released = read("rn50_maxsup_paper"), read("rn50_maxsup_released")
    assert (paper.training.epochs, paper.training.batch_size, paper.lr.schedule) == (200, 2048, "cosine")
    assert paper.make_lr()(0) == 0.85
    assert (released.training.epochs, released.training.batch_size) == (90, 2048)
    assert [released.make_lr()(e) for e in (0, 30, 60)] == pytest.approx([0.8, 0.08, 0.008])
    assert released.model.blurpool
    assert released.dist.sync_bn
    assert released.training.precision == "bf16"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.stem)
def test_header_names_command_hardware_and_result(recipe):
    text = recipe.read_text()
    header = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    assert "# Command: " in header
    assert "# Meant for: " in header
    assert "not measured" in header or "Measured: " in header
    if recipe.stem not in ("digits",):
        assert f"--config-file rn_configs/{recipe.name}" in header


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.stem)
def test_model_is_built_and_a_shrunk_copy_takes_a_step(recipe, digits, tmp_path):
    config = build(TrainConfig, read_yaml(recipe) | DATA)
    with torch.device("meta"):
        model = build_model(config.model.arch, 1000, blurpool=config.model.blurpool, **config.model.network())
        for side in {config.resolution.min_res, config.resolution.max_res, config.validation.resolution}:
            assert model(torch.empty(2, 3, side, side)).shape == (2, 1000)
    shrunk = {
        "data.train": str(digits / "train.beton"),
        "data.val": str(digits / "val.beton"),
        "data.num_workers": 1,
        "model.arch": "toy_model:Small",
        "model.drop_path": 0,
        "resolution.min_res": 32,
        "resolution.max_res": 32,
        "validation.resolution": 32,
        "lr.peak_epoch": 0.5 if config.lr.schedule == "piecewise" else "none",
        "lr.warmup_epochs": 0 if config.lr.schedule != "piecewise" else "none",
        "lr.step_length": "none",
        "lr.step_epochs": "none",
        "loss.reweight_epoch": 0 if config.loss.of_loss.get("class_weights") else "none",
        "training.epochs": 1,
        "training.batch_size": 24,
        "training.max_steps": 1,
        "training.precision": "fp32",
        "dist.device": "cpu",
        "logging.folder": str(tmp_path),
    }
    last = train(build(TrainConfig, read_yaml(recipe) | shrunk))
    assert math.isfinite(last.train_loss)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
def test_every_loss_fits_a_recipe_or_is_refused_by_name(recipe):
    values = {key: value for key, value in read_yaml(recipe).items() if not key.startswith("loss.")}
    for loss, kind in LOSSES.kinds.items():
        given = values | DATA | {"loss.name": loss}
        mixes = bool(float(values.get("augment.mixup", 0)) or float(values.get("augment.cutmix", 0)))
        if mixes and not (kind().linear_in_target or kind().takes_soft_targets):
            with pytest.raises(ValueError, match=rf"augment\.(mixup|cutmix): .*loss.name={loss}"):
                build(TrainConfig, given)
        else:
            assert build(TrainConfig, given).loss.name == loss


def test_deit_is_trained_as_in_its_paper():
    recipe, without = read("deit_s"), read("deit_s_no_mixing")
    rates = [recipe.make_lr()(epoch) for epoch in (0, 5, 300)]
    assert rates == pytest.approx([1e-6, 1e-3, 1e-5])
    assert (recipe.augment.mixup, recipe.augment.cutmix, recipe.augment.erasing) == (0.8, 1.0, 0.25)
    differ = {key for key, value in flatten(recipe).items() if flatten(without)[key] != value}
    assert differ == {"augment.mixup", "augment.cutmix"}
    with torch.device("meta"):
        model = build_model(recipe.model.arch, 1000, **recipe.model.network())
    assert sum(p.numel() for p in model.parameters()) == 22_050_664
    groups = parameter_groups(model, recipe.training.weight_decay, recipe.training.decay)
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_says_the_number_of_gpus_that_its_head_says(recipe):
    told = re.search(r"# Meant for: (\d+) GPU", recipe.read_text())
    assert read_yaml(recipe).get("dist.meant_for") == (int(told[1]) if told else None)
