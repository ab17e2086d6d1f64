"""How images are chosen and stored: presets, options that apply to a mode, what the seed draws."""

from __future__ import annotations

from typing import Any

import numpy as np

from ffcv_imagenet.data.format.manifest import WriteParameters

#: The data sets of libffcv/ffcv-imagenet's published results.
PRESETS: dict[str, dict[str, Any]] = {
    "rn50": {"mode": "proportion", "max_resolution": 500, "compress_probability": 0.5, "jpeg_quality": 90},
    "rn18": {"mode": "proportion", "max_resolution": 400, "compress_probability": 0.1, "jpeg_quality": 90},
}

#: What applies to which modes, and what stands in where neither the user nor a preset says.
_MODE_OPTIONS = {
    "compress_probability": (("proportion",), 0.5),
    "smart_threshold": (("smart",), 2.0),
    "jpeg_quality": (("jpg", "smart", "proportion"), 90),
}


def resolve_parameters(
    *,
    preset: str | None = None,
    mode: str | None = None,
    max_resolution: int | None = None,
    resize: str | None = None,
    compress_probability: float | None = None,
    smart_threshold: float | None = None,
    jpeg_quality: int | None = None,
    reencode: bool = True,
    subset: int = -1,
    shuffle: bool = False,
    seed: int = 0,
    page_size_mib: int = 8,
) -> WriteParameters:
    """Fill in a preset and the defaults; None means "not given", and what is given goes before the preset.

    Raises:
        ValueError: an option that does not apply to the mode, or a value that is not allowed.
    """
    given: dict[str, Any] = {
        "mode": mode,
        "max_resolution": max_resolution,
        "resize": resize,
        "compress_probability": compress_probability,
        "smart_threshold": smart_threshold,
        "jpeg_quality": jpeg_quality,
    }
    of_preset = PRESETS[preset] if preset else {}
    values: dict[str, Any] = {key: of_preset.get(key) if value is None else value for key, value in given.items()}
    values["mode"] = values["mode"] or "jpg"
    for key, (modes, default) in _MODE_OPTIONS.items():
        if values["mode"] in modes:
            values[key] = default if values[key] is None else values[key]
        elif given[key] is not None:
            raise ValueError(
                f"write.{key}: got {given[key]}, but it applies only to write.mode {' | '.join(modes)} "
                f"(the mode is {values['mode']})"
            )
        else:
            values[key] = None
    if values["max_resolution"] is not None:  # FFCV's filter, so that the presets are the published data sets
        values["resize"] = values["resize"] or "area"
    elif resize is not None:
        raise ValueError(f"write.resize: got {resize}, but it applies only with write.max_resolution=PIXELS")
    if subset == 0:
        raise ValueError("write.subset: got 0, allowed is a number of images >= 1, or -1 for all")
    if page_size_mib & (page_size_mib - 1):
        raise ValueError(f"write.page_size_mib: got {page_size_mib}, allowed is a power of 2")
    if not reencode and values["mode"] not in ("jpg", "proportion"):
        raise ValueError(
            f"write.reencode: got 0, but it applies only to write.mode jpg | proportion, not {values['mode']}"
        )
    return WriteParameters(
        reencode=reencode, subset=subset, shuffle=shuffle, seed=seed, page_size_mib=page_size_mib, **values
    )


def sample_order(num_files: int, parameters: WriteParameters) -> np.ndarray:
    """Indices of the source's files in the order in which they are stored, [number of samples] int64."""
    order = np.arange(num_files)
    if parameters.subset != -1:
        drawn = np.argsort(_random_words(parameters.seed, "subset", num_files), kind="stable")
        order = np.sort(drawn[: parameters.subset])
    if parameters.shuffle:
        order = order[np.argsort(_random_words(parameters.seed, "shuffle", len(order)), kind="stable")]
    return order


def storage_modes(num_samples: int, parameters: WriteParameters) -> list[str]:
    """How each sample is stored: ``jpg``, ``raw`` or ``smart``.

    In mode ``proportion`` it depends on the seed and the sample's index in the file alone.
    """
    if parameters.mode != "proportion":
        return [parameters.mode] * num_samples
    uniform = _random_words(parameters.seed, "compress", num_samples) / 2.0**64
    return ["jpg" if number < parameters.compress_probability else "raw" for number in uniform]


def _random_words(seed: int, purpose: str, count: int) -> np.ndarray:
    """Random numbers, [count] uint64; element i depends on (seed, purpose, i) alone, in every version of numpy."""
    # Generator's methods may change between versions of numpy; SeedSequence and the raw bits do not.
    words = np.random.Philox(np.random.SeedSequence([seed, *purpose.encode()]))
    return words.random_raw(count)
