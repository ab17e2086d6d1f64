"""A trained network as a file that other programs read, with what they need to know next to it.

    python -m ffcv_imagenet.export --run runs/a [--format torchvision|safetensors|onnx] [--out FILE]
    python -m ffcv_imagenet.export --weights FILE --arch ARCH ...

``torchvision``: a state dict (.pth) for ``torchvision.models.get_model(ARCH, num_classes=K).load_state_dict(...)``.
``safetensors``: the same tensors. ``onnx``: the graph, checked with onnxruntime against torch (both packages are
needed). ``FILE.json`` says architecture, classes, image size, crop, mean and standard deviation.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffcv_imagenet.files import write_atomically
from ffcv_imagenet.names import shown
from ffcv_imagenet.options import Given
from ffcv_imagenet.script import OneLineParser, run_script

if TYPE_CHECKING:
    from ffcv_imagenet.analysis.subject import Subject

#: The ending of each format's files.
FORMATS = {"torchvision": ".pth", "safetensors": ".safetensors", "onnx": ".onnx"}
#: How far onnxruntime's logits may be from torch's, as a share of the largest.
_ONNX_TOLERANCE = 1e-4


def main(argv: Sequence[str]) -> None:
    """``python -m ffcv_imagenet.export``.

    Raises:
        ValueError, FileNotFoundError: a user's mistake.
    """
    arguments = _parser().parse_args(list(argv))
    if bool(arguments.run) == bool(arguments.weights):
        raise ValueError("give --run=RUN_FOLDER or --weights=FILE --arch=ARCH")
    if arguments.format == "onnx":
        missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
        if missing:
            raise ValueError(f"--format=onnx needs {', '.join(missing)}: pip install {' '.join(missing)}")

    from ffcv_imagenet.analysis.subject import load_subject
    from ffcv_imagenet.distributed import find_world

    values: dict[str, Any] = {"dist.device": "cpu"}
    values |= {"model.arch": arguments.arch} if arguments.arch else {}
    values |= {"model.blurpool": True} if arguments.blurpool else {}
    place = arguments.run or arguments.weights
    subject = load_subject(place, Given(values, {}), find_world("cpu"), is_run=bool(arguments.run))
    out = arguments.out or place / f"{subject.name}{FORMATS[arguments.format]}"
    if arguments.weights and not arguments.out:
        raise ValueError("--weights needs --out=FILE, which says where the new file goes")
    export(subject, arguments.format, out)
    print(f"{subject.source}: {shown(out)} and {shown(metadata_file(out))}")


def metadata_file(out: Path) -> Path:
    """Where the metadata of an exported file lie."""
    return out.with_name(f"{out.name}.json")


def export(subject: Subject, kind: str, out: Path) -> None:
    """Write ``out`` in one of :data:`FORMATS`, and its metadata.

    Raises:
        ValueError: the network has blur pooling, which plain torchvision does not have, and ``kind`` is
            ``torchvision``; or onnxruntime computes other logits.
    """
    import torch

    from ffcv_imagenet.run.safetensors import write_safetensors

    model = subject.model
    if kind == "torchvision":
        if subject.config.model.blurpool:
            raise ValueError(
                "torchvision has no blur pooling, and would take these weights for another network: allowed are "
                "--format=safetensors and --format=onnx"
            )
        content = io.BytesIO()
        torch.save({name: value.contiguous() for name, value in model.state_dict().items()}, content)
        write_atomically(out, content.getvalue())
    elif kind == "safetensors":
        write_safetensors(out, model.state_dict(), {"format": "pt", "arch": subject.config.model.arch})
    else:
        _export_onnx(subject, out)
    write_atomically(metadata_file(out), (json.dumps(_metadata(subject), indent=1) + "\n").encode())


def _metadata(subject: Subject) -> dict[str, Any]:
    preparation = dict(subject.preparation)
    del preparation["precision"]
    return {
        "architecture": subject.config.model.arch,
        "blurpool": subject.config.model.blurpool,
        "num_classes": subject.num_classes,
        "classes": subject.class_names(),
        "source": subject.source,
        "weights": subject.checksum,
        **preparation,
        "input": "RGB, (value / 255 - mean) / std, of the centred square of crop_ratio times the shorter side, resized",
    }


def _export_onnx(subject: Subject, out: Path) -> None:
    import numpy as np
    import onnxruntime
    import torch

    side = subject.config.validation.resolution
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    program = torch.onnx.export(
        subject.model,
        (images,),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes={"x": {0: torch.export.Dim("batch")}},
        dynamo=True,
    )
    assert program is not None
    with tempfile.TemporaryDirectory() as folder:
        program.save(f"{folder}/model.onnx")
        content = Path(folder, "model.onnx").read_bytes()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = subject.model(images).numpy()
    got = session.run(None, {"images": images.numpy()})[0]
    worst = float(np.abs(got - expected).max() / np.abs(expected).max())
    if not worst <= _ONNX_TOLERANCE:
        raise ValueError(f"onnxruntime's logits differ from torch's by {worst:.2g} of the largest: nothing is written")
    write_atomically(out, content)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m ffcv_imagenet.export",
        description="Write a trained network for other programs.",
    )
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="a run folder: its newest checkpoint")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="a file of weights instead of a run")
    parser.add_argument("--arch", metavar="ARCH", help="architecture of --weights")
    parser.add_argument("--blurpool", action="store_true", help="the network of --weights has model.blurpool")
    parser.add_argument("--format", choices=list(FORMATS), default="torchvision", help="default: torchvision")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the new file (default: in the run folder)")
    return parser


if __name__ == "__main__":
    run_script(main)
