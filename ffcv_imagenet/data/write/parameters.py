"""How images are chosen and stored: presets, options that apply to a mode, what the seed draws."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ffcv_imagenet.data.format.manifest import MAX_PIXELS, WriteParameters
from ffcv_imagenet.data.write.modes import MODES

#: The data sets of libffcv/ffcv-imagenet's published results, and small ones.
PRESETS: dict[str, dict[str, Any]] = {
    "rn50": {"mode": "proportion", "max_resolution": 500, "compress_probability": 0.5, "jpeg_quality": 90},
    "rn18": {"mode": "proportion", "max_resolution": 400, "compress_probability": 0.1, "jpeg_quality": 90},
    "cifar": {"mode": "raw"},
    "cifar_lt": {"mode": "raw", "imbalance": "exp:100"},
    "imagenette": {"mode": "jpg", "reencode": False},
}


def resolve_parameters(
    *,
    preset: str | None = None,
    mode: str | None = None,
    max_resolution: int | None = None,
    resize: str | None = None,
    subset: int = -1,
    shuffle: bool = False,
    seed: int = 0,
    page_size_mib: int = 8,
    max_pixels: int | None = None,
    per_class: int | None = None,
    imbalance: str | None = None,
    **given: Any,
) -> WriteParameters:
    """Fill in a preset and the defaults; None means "not given", and what is given goes before the preset.

    ``given`` are options of the mode, see :data:`~ffcv_imagenet.data.write.modes.MODES`.

    Raises:
        ValueError: an option that does not apply to the mode, or a value that is not allowed.
    """
    of_preset = PRESETS[preset] if preset else {}
    mode = mode or of_preset.get("mode", "jpg")
    applicable = {key: value for key, value in of_preset.items() if key in MODES.takes(mode)}
    options = MODES.resolve(mode, applicable | {key: value for key, value in given.items() if value is not None})
    max_resolution = of_preset.get("max_resolution") if max_resolution is None else max_resolution
    if max_resolution is not None:
        resize = resize or "area"  # FFCV's, so that the presets are the published data sets
    elif resize is not None:
        raise ValueError(f"write.resize: got {resize}, but it applies only with write.max_resolution=PIXELS")
    if subset == 0:
        raise ValueError("write.subset: got 0, allowed is a number of images >= 1, or -1 for all")
    imbalance = of_preset.get("imbalance") if imbalance is None else imbalance
    if imbalance is not None:
        parse_imbalance(imbalance)
        if per_class is not None:
            raise ValueError(
                f"write.per_class: got {per_class} with write.imbalance={imbalance}, allowed is one of them"
            )
    if page_size_mib & (page_size_mib - 1):
        raise ValueError(f"write.page_size_mib: got {page_size_mib}, allowed is a power of 2")
    return WriteParameters(
        mode=mode,
        max_resolution=max_resolution,
        resize=resize,
        compress_probability=options.get("compress_probability"),
        smart_threshold=options.get("smart_threshold"),
        jpeg_quality=options.get("jpeg_quality"),
        reencode=options.get("reencode", True),
        subset=subset,
        shuffle=shuffle,
        seed=seed,
        page_size_mib=page_size_mib,
        max_pixels=MAX_PIXELS if max_pixels is None else max_pixels,
        per_class=per_class,
        imbalance=imbalance,
    )


def parse_imbalance(text: str) -> tuple[str, float]:
    """Shape and ratio; raises ValueError on anything else than ``exp:RATIO`` and ``step:RATIO``."""
    found = re.fullmatch(r"(exp|step):(\d+(?:\.\d+)?)", text)
    if found is None or float(found[2]) < 1:
        raise ValueError(f"write.imbalance: got {text!r}, allowed is exp:RATIO or step:RATIO with a ratio >= 1")
    return found[1], float(found[2])


def sample_order(num_files: int, parameters: WriteParameters) -> np.ndarray:
    """Indices of the source's files in the order in which they are stored, [number of samples] int64."""
    order = np.arange(num_files)
    if parameters.subset != -1:
        drawn = np.argsort(random_words(parameters.seed, "subset", num_files), kind="stable")
        order = np.sort(drawn[: parameters.subset])
    if parameters.shuffle:
        order = order[np.argsort(random_words(parameters.seed, "shuffle", len(order)), kind="stable")]
    return order


def storage_modes(num_samples: int, parameters: WriteParameters) -> list[str]:
    """How each sample is stored: ``jpg``, ``raw`` or ``smart``.

    In mode ``proportion`` it depends on the seed and the sample's index in the file alone.
    """
    if parameters.mode != "proportion":
        return [parameters.mode] * num_samples
    uniform = random_words(parameters.seed, "compress", num_samples) / 2.0**64
    return ["jpg" if number < parameters.compress_probability else "raw" for number in uniform]


def random_words(seed: int, purpose: str, count: int) -> np.ndarray:
    """Random numbers, [count] uint64; element i depends on (seed, purpose, i) alone, in every version of numpy."""
    # Generator's methods may change between versions of numpy; SeedSequence and the raw bits do not.
    words = np.random.Philox(np.random.SeedSequence([seed, *purpose.encode()]))
    return words.random_raw(count)
