"""TensorBoard and Weights & Biases: each line of a run's log as scalars over the epochs. Both packages are optional."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Protocol


class Logger(Protocol):
    """Shows a run's log somewhere else."""

    def log(self, lines: list[dict[str, Any]]) -> None:
        """Show the lines that have not been shown yet; ``lines`` are all of the run's log."""

    def close(self, finished: bool) -> None:
        """Nothing more comes; ``finished``: the run has come to its end."""


def check_installed(*, tensorboard: bool, wandb: str | None) -> None:
    """Raise ValueError if what is asked for is not installed."""
    for option, wanted in (("tensorboard", tensorboard), ("wandb", wandb is not None)):
        if wanted:
            try:
                distribution(option)
            except PackageNotFoundError:
                raise ValueError(f"logging.{option} needs the package {option}: pip install {option}") from None


def make_loggers(folder: Path, params: dict[str, Any], *, tensorboard: bool, wandb: str | None) -> list[Logger]:
    """The loggers that are asked for, of the run in ``folder`` with these ``params``; on rank 0.

    Raises:
        ValueError: Weights & Biases refuses, for example because there is no login.
    """
    loggers: list[Logger] = []
    if tensorboard:
        loggers.append(TensorBoardLogger(folder / "tensorboard"))
    if wandb is not None:
        loggers.append(WandbLogger(folder, params, wandb))
    return loggers


class TensorBoardLogger:
    """Writes event files to ``folder``.

    The events of earlier starts of the run are purged, and the whole log is written again: events and log always say
    the same, wherever the run was interrupted.
    """

    def __init__(self, folder: Path):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=0)
        self._shown = 0

    def log(self, lines: list[dict[str, Any]]) -> None:
        """See :class:`Logger`."""
        for line in lines[self._shown :]:
            for name, value in _scalars(line).items():
                self._writer.add_scalar(name, value, line["epoch"])
        self._writer.flush()
        self._shown = len(lines)

    def close(self, finished: bool) -> None:
        """See :class:`Logger`."""
        self._writer.close()


class WandbLogger:
    """Logs to a project of Weights & Biases; its files go to ``folder``.

    The run's id follows from its name and first start, so a resumed run continues in the same one.
    """

    def __init__(self, folder: Path, params: dict[str, Any], project: str):
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._run = wandb.init(
                project=project,
                name=params["name"],
                id=hashlib.sha256(f"{params['name']} {params['started']}".encode()).hexdigest()[:16],
                resume="allow",
                config=params,
                dir=str(folder),
                settings=wandb.Settings(console="off"),
            )
        except wandb.Error as error:
            raise ValueError(f"logging.wandb: {' '.join(str(error).split())}") from None
        self._next = self._run.starting_step

    def log(self, lines: list[dict[str, Any]]) -> None:
        """See :class:`Logger`."""
        for line in lines:
            if line["epoch"] >= self._next:
                self._run.log(_scalars(line), step=line["epoch"])
        self._next = lines[-1]["epoch"] + 1

    def close(self, finished: bool) -> None:
        """See :class:`Logger`."""
        self._run.finish(exit_code=0 if finished else 1)


def _scalars(line: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in line.items() if name != "epoch" and isinstance(value, (int, float))}
