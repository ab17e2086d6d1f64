"""Checkpoints of a run: written whole, checked before they are used, read without running code from them."""

from __future__ import annotations

import io
import pickle
import re
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ffcv_imagenet.files import atomic_file

FORMAT = 2

_NAME = re.compile(r"epoch_(\d+)(?:_step_(\d+))?\.pt")


class CheckpointFolder:
    """The checkpoints of one run: ``epoch_NNNN.pt`` after NNNN epochs, ``epoch_NNNN_step_SSSSSS.pt`` some steps later.

    Keeps the newest ``keep`` ends of epochs, the one with the best top-1, and the newest ``keep`` of the epoch that is
    under way; none that is later than the one just written. ``params`` and ``also`` (plain values) go into each.
    """

    def __init__(self, path: Path, keep: int, params: dict[str, Any] | None = None, also: dict[str, Any] | None = None):
        self.path, self.keep, self.params, self.also = path, keep, params, also or {}

    def save(self, state: dict[str, Any], epochs_done: int, step: int = 0, best_epoch: int | None = None) -> Path:
        """Write ``state`` (tensors and plain values only) and remove the files that are no longer kept."""
        self.path.mkdir(parents=True, exist_ok=True)
        target = self.path / (f"epoch_{epochs_done:04d}" + (f"_step_{step:06d}" if step else "") + ".pt")
        with atomic_file(target) as file:
            try:
                torch.save({"format": FORMAT, "params": self.params, **self.also, **state}, file)
            except RuntimeError as error:  # torch's own, of how far it came, on top of the file's.
                raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
        # Later ones are of a training that was left for an older checkpoint, and must not become the newest again.
        files = [file for file in self.files() if _position(file) <= (epochs_done, step)]
        ends = [file for file in files if _position(file)[1] == 0]
        under_way = [file for file in files if _position(file) > (epochs_done, 0)]
        best = [file for file in ends if _position(file)[0] == best_epoch]
        kept = {target, *ends[-self.keep :], *under_way[-self.keep :], *best}
        for old in set(self.files()) - kept:
            old.unlink()
        for left_by_a_killed_process in self.path.glob(".epoch_*.partial"):
            left_by_a_killed_process.unlink()
        return target

    def files(self) -> list[Path]:
        """The checkpoints, oldest first."""
        return sorted((file for file in self.path.glob("epoch_*.pt") if _NAME.fullmatch(file.name)), key=_position)

    def newest(self) -> dict[str, Any] | None:
        """The last checkpoint that is undamaged, or None without any; says so when it has to pass over one.

        Raises:
            ValueError: there are checkpoints, and all of them are damaged.
        """
        files = self.files()
        for file in reversed(files):
            try:
                return load_checkpoint(file)
            except ValueError as error:
                print(f"warning: {error}; trying the one before", file=sys.stderr)
        if files:
            raise ValueError(
                f"none of the {len(files)} checkpoints in {self.path} can be used; without them it starts anew"
            )
        return None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU: a file, or the newest of a run folder.

    Raises:
        FileNotFoundError: no such file, or a folder without checkpoints.
        ValueError: damaged, or not a checkpoint of this program.
    """
    if path.is_dir():
        newest_checkpoint(path)  # there is one
        state = _checkpoints_of(path).newest()
        assert state is not None
        return state
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint not found: {path}")
    try:
        state = read_tensor_file(path)
    except ValueError as error:
        raise ValueError(f"checkpoint {path} cannot be read: {error}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of this program (format {FORMAT})")
    return state


def newest_checkpoint(folder: Path) -> Path:
    """The last checkpoint of a run folder, or of its folder of checkpoints; raises FileNotFoundError without any."""
    files = _checkpoints_of(folder).files()
    if not files:
        raise FileNotFoundError(f"no checkpoint in {folder}: allowed is a checkpoint or the folder of a run")
    return files[-1]


def _checkpoints_of(folder: Path) -> CheckpointFolder:
    inside = folder / "checkpoints"
    return CheckpointFolder(inside if inside.is_dir() else folder, keep=1)


def _position(file: Path) -> tuple[int, int]:
    """Finished epochs, and steps after them."""
    match = _NAME.fullmatch(file.name)
    assert match is not None
    return int(match[1]), int(match[2] or 0)


def read_tensor_file(path: Path, also: Sequence[Any] = ()) -> Any:
    """The tensors and plain values in ``path``, on the CPU.

    Args:
        path: the file.
        also: what else may be in it, as :func:`torch.serialization.safe_globals` takes it.

    Raises:
        OSError: it cannot be read.
        ValueError: damaged, or it holds anything else, such as code.
    """
    content = io.BytesIO(path.read_bytes())
    try:
        # torch.save writes a zip file with checksums, which torch.load does not look at.
        if zipfile.is_zipfile(content):
            with zipfile.ZipFile(content) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"wrong checksum of {damaged}")
        content.seek(0)
        with torch.serialization.safe_globals(list(also)):
            return torch.load(content, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch's message proposes to run the code
        raise ValueError("damaged, or more than tensors and plain values in it") from None
    except Exception as error:
        raise ValueError((str(error) or type(error).__name__).splitlines()[0]) from None
