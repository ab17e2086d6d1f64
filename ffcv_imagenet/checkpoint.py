"""Checkpoints of a run: written whole, read without running code from them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from ffcv_imagenet.atomic import atomic_file

FORMAT = 1


class CheckpointFolder:
    """The checkpoints ``epoch_NNNN.pt`` of one run, NNNN being the number of finished epochs.

    Keeps the newest ``keep`` files and the one with the best top-1. ``params`` (plain values) goes into each.
    """

    def __init__(self, path: Path, keep: int, params: dict[str, Any] | None = None):
        self.path, self.keep, self.params = path, keep, params

    def save(self, state: dict[str, Any], epochs_done: int, best_epoch: int | None) -> Path:
        """Write ``state`` (tensors and plain values only) and remove the files that are no longer kept."""
        self.path.mkdir(parents=True, exist_ok=True)
        target = self._file(epochs_done)
        with atomic_file(target) as file:
            torch.save({"format": FORMAT, "params": self.params, **state}, file)
        kept = {*self.files()[-self.keep :], target, self._file(best_epoch or 0)}
        for old in set(self.files()) - kept:
            old.unlink()
        return target

    def files(self) -> list[Path]:
        """The checkpoints, oldest first."""
        return sorted(self.path.glob("epoch_*.pt"))

    def newest(self) -> dict[str, Any] | None:
        """The last checkpoint that can be read whole, or None; says so when it has to pass over one."""
        for file in reversed(self.files()):
            try:
                return load_checkpoint(file)
            except ValueError as error:
                print(f"warning: {error}; trying the one before", file=sys.stderr)
        return None

    def _file(self, epochs_done: int) -> Path:
        return self.path / f"epoch_{epochs_done:04d}.pt"


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or not a checkpoint of this program.
    """
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint not found: {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"checkpoint {path} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of this program (format {FORMAT})")
    return state
