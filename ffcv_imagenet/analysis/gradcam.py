"""Where in an image the network looks: Grad-CAM of the same images for all runs."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ffcv_imagenet.analysis.measurement import DataSets, Measured, Measurement, Row
from ffcv_imagenet.options import Choice, Integer, OrNone, Text, option

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from ffcv_imagenet.analysis.subject import Subject


@dataclass(frozen=True)
class GradCam(Measurement):
    """Heat maps by Grad-CAM (Selvaraju et al., arXiv 1610.02391) on the last feature map larger than 1 x 1.

    The map's channels are weighted by the mean gradient of a class's logit, summed, cut off below 0, and scaled to 0..1
    for each image. The images are those of the numbers given, or drawn by the seed among all or among those for which
    not all runs predict the same class: never chosen by how they look. They are prepared as the run's validation images
    are.
    """

    on_every_rank: ClassVar[bool] = True

    samples: str | None = option(OrNone(Text()), "numbers of images, separated by commas (none: drawn)", None)
    among: str = option(
        Choice("all", "disagreed"), "images that are drawn from: all, or those that the runs disagree on", "all"
    )
    count: int = option(Integer(1, 64), "how many images are drawn", 8)
    seed: int = option(Integer(0), "draws the images", 0)
    target: str = option(
        Choice("label", "top1"), "class that is explained: the image's own, or the predicted one", "label"
    )

    def unfit(self, subject: Subject, sets: DataSets) -> str | None:
        """See :class:`Measurement`."""
        if sets.val.manifest.num_classes != subject.num_classes:
            of_data = f"{sets.val.path} has {sets.val.manifest.num_classes}"
            return f"{subject.source} has {subject.num_classes} classes, {of_data}"
        try:
            find_map(subject.model, subject.config.validation.resolution, str(subject.world.device))
        except ValueError as error:
            return str(error)
        return None

    @property
    def wants_predictions(self) -> bool:
        """See :class:`Measurement`."""
        return self.among == "disagreed"

    def informed(self, predictions: Sequence[np.ndarray]) -> GradCam:
        """See :class:`Measurement`; raises ValueError where the runs agree on everything."""
        if self.samples is not None:
            raise ValueError(
                f"gradcam.samples: got {self.samples!r} with gradcam.among=disagreed, allowed is one of them"
            )
        if len(predictions) < 2:
            raise ValueError("gradcam.among: got disagreed with a single run, allowed are two runs or more")
        disagreed = np.flatnonzero((np.stack(predictions) != predictions[0]).any(axis=0))
        if not len(disagreed):
            raise ValueError("gradcam.among: got disagreed, but all runs predict the same class for every image")
        drawn = np.sort(np.random.default_rng(self.seed).permutation(disagreed)[: self.count])
        return replace(self, samples=",".join(map(str, drawn.tolist())))

    def numbers(self, images: int) -> list[int]:
        """The numbers of the images; raises ValueError for others than there are."""
        if self.samples is None:
            return sorted(np.random.default_rng(self.seed).permutation(images)[: self.count].tolist())
        found = [int(word) if word.isdecimal() else -1 for word in self.samples.split(",")]
        if not all(0 <= number < images for number in found):
            raise ValueError(f"gradcam.samples: got {self.samples!r}, allowed are numbers from 0 to {images - 1}")
        return found

    def measure(self, subject: Subject, sets: DataSets, kept: Mapping[Any, Any]) -> dict[str, Any]:
        """See :class:`Measurement`."""
        import torch

        from ffcv_imagenet.analysis.outputs import read_images
        from ffcv_imagenet.augment.normalize import Normalize
        from ffcv_imagenet.distributed import gather

        wanted, config = self.numbers(sets.val.manifest.num_samples), subject.config
        module = find_map(subject.model, config.validation.resolution, str(subject.world.device))
        normalize = Normalize(config.data.mean, config.data.std).to(subject.world.device)
        own = {}
        for numbers, images, labels in read_images(subject, sets.val.path):
            chosen = np.flatnonzero(np.isin(numbers, wanted))
            if not len(chosen):
                continue
            if images.is_floating_point():
                raise ValueError("gradcam: images have to be decoded on the CPU: --data.decode=cpu")
            where = torch.from_numpy(chosen).to(images.device)
            pixels, target = images[where], labels[where]
            maps, probabilities, explained = heat_maps(
                subject.model, module, normalize(pixels), target if self.target == "label" else None
            )
            for place, number in enumerate(numbers[chosen].tolist()):
                own[number] = {
                    "number": number,
                    "label": sets.val.manifest.classes[int(target[place])],
                    "explained": sets.val.manifest.classes[int(explained[place])],
                    "predicted": sets.val.manifest.classes[int(probabilities[place].argmax())],
                    "probability": float(probabilities[place].max()),
                    "map": maps[place].tolist(),
                    "png": _png(pixels[place].permute(1, 2, 0).cpu().numpy()),
                }
        everyone: dict[int, dict[str, Any]] = {}
        for part in gather(own):
            everyone |= part
        shown = [everyone[number] for number in wanted]
        right = float(np.mean([one["label"] == one["predicted"] for one in shown]))
        return {"images": shown, "summary": {"share of the images shown that is right": right}}

    def rows(self, results: dict[str, Any]) -> list[Row]:
        """See :class:`Measurement`."""
        names = ("number", "label", "explained", "predicted", "probability")
        return [{name: one[name] for name in names} for one in results["images"]]

    def draw(self, figure: Figure, measured: Sequence[Measured]) -> None:
        """See :class:`Measurement`."""
        from PIL import Image

        images = measured[0].results["images"]
        figure.set_size_inches(1.7 * len(images) + 0.5, 2.1 * (len(measured) + 1))
        panels = figure.subplots(len(measured) + 1, len(images), squeeze=False)
        for column, one in enumerate(images):
            pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(one["png"]))))
            panels[0, column].imshow(pixels)
            panels[0, column].set_title(f"{one['number']}: {one['label']}", fontsize=7)
            for row, run in enumerate(measured, start=1):
                panel, found = panels[row, column], run.results["images"][column]
                panel.imshow(pixels)
                side = (-0.5, pixels.shape[1] - 0.5, pixels.shape[0] - 0.5, -0.5)
                panel.imshow(found["map"], extent=side, alpha=0.5, cmap="jet", vmin=0, vmax=1, interpolation="bilinear")
                panel.set_xlabel(f"{found['predicted']} {100 * found['probability']:.0f} %", fontsize=7)
        for panel in panels.flat:
            panel.set(xticks=[], yticks=[])
        for row, run in enumerate(measured, start=1):
            panels[row, 0].set_ylabel(run.name, fontsize=7)


def find_map(model: nn.Module, side: int, device: str) -> nn.Module:
    """The module that computes the last feature map [B, C, h, w] with h, w > 1 for images of this side.

    Raises:
        ValueError: there is none, as in a vision transformer.
    """
    import torch

    found: list[nn.Module] = []
    # What an attention computes may have four dimensions, too: [B, heads, tokens, features of a head].
    attentions = [module for module in model.modules() if "attention" in type(module).__name__.lower()]
    inside = {id(module) for attention in attentions for module in attention.modules()}

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if not isinstance(output, torch.Tensor) or output.ndim != 4 or id(module) in inside:
            return
        if output.shape[2] == output.shape[3] > 1:  # square as the image; [B, h, w, C] is not
            found.append(module)

    handles = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with torch.no_grad():
            model(torch.zeros(2, 3, side, side, device=device))
    finally:
        for handle in handles:
            handle.remove()
    if len(found) < 2:  # A lone convolution cuts a transformer's patches.
        raise ValueError(f"{type(model).__name__} has no feature map for Grad-CAM")
    return found[-1]


def heat_maps(
    model: nn.Module, module: nn.Module, images: Tensor, target: Tensor | None
) -> tuple[np.ndarray, Tensor, Tensor]:
    """Grad-CAM of ``images [B, 3, H, W]``.

    Args:
        model: in evaluation mode.
        module: computes the feature map.
        images: normalised.
        target: [B] classes to explain; None: the predicted ones.

    Returns:
        heat maps [B, h, w] in 0..1 (all 0 where nothing speaks for the class), probabilities [B, K], the classes [B].
    """
    import torch

    kept: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        # The weights need no gradient, so that the map begins the graph.
        kept.append(output.detach().clone().requires_grad_())
        return kept[-1]

    handle = module.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = model(images)
            chosen = logits.argmax(dim=1) if target is None else target
            # Images don't depend on each other in evaluation mode, so that the sum has each one's own gradient.
            (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), kept[-1])
    finally:
        handle.remove()
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    maps = (weights * kept[-1].detach()).sum(dim=1).clamp_min(0).float()
    top = maps.amax(dim=(1, 2), keepdim=True)
    maps = torch.where(top > 0, maps / torch.where(top > 0, top, 1.0), 0.0)
    return maps.cpu().numpy(), logits.detach().float().softmax(dim=1).cpu(), chosen.cpu()


def _png(pixels: np.ndarray) -> str:
    """An image [H, W, 3] uint8 as the text of a PNG file in base 64."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
