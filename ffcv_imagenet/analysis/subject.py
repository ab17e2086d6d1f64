"""From a run folder or a file of weights to the network that is measured, prepared as its run validated it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.distributed import World, on_main
from ffcv_imagenet.evaluated import find_evaluated
from ffcv_imagenet.models import build_model, output_parameters
from ffcv_imagenet.options import Given, build
from ffcv_imagenet.resolved import Resolved, resolve
from ffcv_imagenet.run.class_order import read_class_order, rows_in_order
from ffcv_imagenet.run.weights import checkpoint_weights, load_state, read_weights


@dataclass(frozen=True)
class Subject:
    """A network to measure.

    Attributes:
        name: of the run, or of the file of weights without its ending.
        source: where the weights come from, in words.
        folder: where results go.
        config: all options; those of the sections data, model and validation say how images are prepared.
        world: this process among all.
        model: in evaluation mode, on the device.
        num_classes: K, the length of its output.
        checksum: of all parameters and buffers, independent of the file they lie in.
        run: what the run's ``params.json`` says; None for a file of weights.
        classes: names by label that the checkpoint has, as folders and as people call them.
    """

    name: str
    source: str
    folder: Path
    config: TrainConfig
    world: World
    model: nn.Module
    num_classes: int
    checksum: str
    run: Mapping[str, Any] | None = None
    classes: tuple[Sequence[str], Sequence[str]] = ((), ())

    def start(self, data: Path, crop_ratio: float | None = None) -> Resolved:
        """What reads the images in ``data`` as this run's validation images (but for the ``crop_ratio`` given)."""
        validation = self.config.validation
        if crop_ratio is not None:
            validation = replace(validation, crop_ratio=crop_ratio)
        data_options = replace(self.config.data, val=str(data))
        return resolve(replace(self.config, data=data_options, validation=validation), self.world)

    def class_names(self, *, of_people: bool = False) -> list[str] | None:
        """Names by label: as folders are called, or where there are such, those that people use.

        From the manifest of the validation data, else from the checkpoint; None where neither tells them.
        """
        folders, people = self.classes
        data = self.config.data.val
        if data is not None and Manifest.path(Path(data)).is_file():
            manifest = Manifest.read(Path(data))
            folders, people = manifest.classes, manifest.class_names
        if len(folders) != self.num_classes:
            return None
        return list(people if of_people and people else folders)

    @property
    def preparation(self) -> dict[str, Any]:
        """How an image becomes the network's input, and in which precision that computes."""
        config = self.config
        return {
            "resolution": config.validation.resolution,
            "crop_ratio": config.validation.crop_ratio,
            "resize": config.data.resize,
            "mean": list(config.data.mean),
            "std": list(config.data.std),
            "precision": config.training.precision,
        }


def load_subject(
    place: Path,
    given: Given,
    world: World,
    *,
    is_run: bool,
    data: Path | None = None,
    out: Path | None = None,
    class_order: Path | None = None,
) -> Subject:
    """Load a run folder (``is_run``; its newest checkpoint) or a file of weights.

    Args:
        place: the folder or the file.
        given: options that a user gives, which win over those of the run.
        world: this process among all.
        is_run: whether ``place`` is a run folder.
        data: a .beton file of the images to measure on; without one, nothing is read but the weights.
        class_order: the classes in the order in which a file of weights has them, see
            :func:`~ffcv_imagenet.run.class_order.read_class_order`; None: in that of ``data``.
        out: where results go; None: ``analysis`` in the run folder, ``<name>_analysis`` next to a file of weights.

    Raises:
        ValueError, FileNotFoundError: a user's mistake.
    """
    found_in = {"checkpoint.resume": str(place)} if is_run else {"model.weights": str(place)}
    values = {"training.precision": "fp32", "training.eval_only": True, **given.values, **found_in}
    values |= {"data.val": str(data)} if data is not None else {}
    given = Given(values, given.origins)
    if is_run and not place.is_dir():
        raise FileNotFoundError(f"run folder not found: {place}")
    config = build(TrainConfig, values, given.origins)
    found = on_main(world, lambda: find_evaluated(config, place))
    if found is not None:
        config = found.config(given)
        state, source, run = checkpoint_weights(found.state), found.source, found.state["params"]
    else:
        weights = on_main(world, lambda: read_weights(place))
        if "model.arch" not in given.values:
            raise ValueError(f"{place} does not say its architecture: give --arch=ARCH")
        state, source, run = weights.state, str(place), None
        if world.is_main:
            print(weights.told, flush=True)
    head = head_names(config.model.arch, state, place)
    num_classes = len(state[head[0]])
    if class_order is not None:
        assert data is not None
        rows = rows_in_order(read_class_order(class_order), Manifest.read(data).classes, class_order)
        if len(rows) != num_classes:
            raise ValueError(f"{class_order} has {len(rows)} classes, {place} {num_classes}")
        state = {**state, **{name: state[name][rows] for name in head}}
    if not is_run and "model.blurpool" not in given.values:
        blurpool = has_blurpool(config.model.arch, state, **config.model.network())
        config = replace(config, model=replace(config.model, blurpool=blurpool))
    model = build_model(
        config.model.arch,
        num_classes,
        blurpool=config.model.blurpool,
        cosine_scale=config.make_loss().cosine_scale,
        **config.model.network(),
    )
    load_state(model, state, place)
    model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last).to(world.device)
    name = (place.resolve() if is_run else place.with_suffix("")).name
    folder = out or (place / "analysis" if is_run else place.with_name(f"{name}_analysis"))
    in_checkpoint = ((), ()) if found is None else (found.state.get("classes", ()), found.state.get("class_names", ()))
    return Subject(name, source, folder, config, world, model, num_classes, weights_checksum(model), run, in_checkpoint)


def head_names(arch: str, state: Mapping[str, Any], place: Path) -> list[str]:
    """The tensors of a state dict that have a row for each class: those of the output layer of ``arch``.

    Raises:
        ValueError: there is none.
    """
    names = output_parameters(arch)
    if found := [name for name in names if isinstance(state.get(name), torch.Tensor) and state[name].ndim]:
        return found
    raise ValueError(f"{place} does not fit model.arch={arch}: it has no tensor {' or '.join(names)}")


def has_blurpool(arch: str, state: Mapping[str, Any], **options: Any) -> bool:
    """Whether a state dict is that of ``arch`` with blur pooling, by its names; ``options`` as of ``build_model``."""
    with torch.device("meta"):
        return build_model(arch, 2, blurpool=True, **options).state_dict().keys() == state.keys() and (
            build_model(arch, 2, **options).state_dict().keys() != state.keys()
        )


def weights_checksum(model: nn.Module) -> str:
    """SHA-256 over the names and the bytes of all parameters and buffers that a checkpoint has, hexadecimal."""
    whole = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        whole.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        whole.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()
