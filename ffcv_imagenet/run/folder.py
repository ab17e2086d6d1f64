"""A run's folder: parameters, one log line per epoch, and how the run ended.

``params.json`` says what ran, ``log.jsonl`` has one JSON object per finished epoch, ``status.json`` the state: running,
finished, failed (``error`` says why) or interrupted (by a signal, with everything saved: start it again). A process
that is killed cannot write it, so that its run stays "running"; :func:`ffcv_imagenet.run.lock.is_active` tells whether
that is true. Every file is written under a temporary name and renamed, so that a reader never sees half of one.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import ffcv_imagenet
from ffcv_imagenet.files import read_json_object, write_atomically
from ffcv_imagenet.run.loggers import Logger

_PACKAGES = ("torch", "torchvision", "ffcv", "numpy", "numba", "fastargs")


class RunFolder:
    """The folder ``path`` of one run; made when it is not there. ``loggers`` show its log elsewhere, too."""

    def __init__(self, path: Path, loggers: Sequence[Logger] = ()):
        self.path, self._loggers = path, list(loggers)
        path.mkdir(parents=True, exist_ok=True)

    @property
    def params_file(self) -> Path:
        """What ran."""
        return self.path / "params.json"

    @property
    def log_file(self) -> Path:
        """One line per epoch."""
        return self.path / "log.jsonl"

    def read_params(self) -> dict[str, Any] | None:
        """What an earlier start of this run wrote; None when there was none.

        Raises:
            ValueError: the file is damaged.
        """
        return read_json_object(self.params_file) if self.params_file.is_file() else None

    def write_params(self, params: dict[str, Any]) -> None:
        """Write ``params.json``."""
        write_atomically(self.params_file, (json.dumps(params, indent=2) + "\n").encode())

    def write_log(self, lines: list[dict[str, Any]]) -> None:
        """Replace the log by ``lines``. A logger that fails is left out from then on: it must not end a training."""
        write_atomically(self.log_file, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode())
        self._tell_loggers(lambda logger: logger.log(lines))

    def write_status(self, state: str, error: str | None = None) -> None:
        """Write the run's state: running, finished, failed or interrupted; with all but the first, loggers close."""
        write_atomically(self.path / "status.json", (json.dumps({"state": state, "error": error}) + "\n").encode())
        if state != "running":
            self._tell_loggers(lambda logger: logger.close(state == "finished"))

    def _tell_loggers(self, what: Callable[[Logger], None]) -> None:
        for logger in list(self._loggers):
            try:
                what(logger)
            except Exception as error:
                self._loggers.remove(logger)
                reason = " ".join(str(error).split())
                print(f"warning: {type(logger).__name__} failed and is left out: {reason}", file=sys.stderr)


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Versions, source commit and hardware, for ``params.json``."""
    return {
        "versions": {
            "python": platform.python_version(),
            "ffcv_imagenet": ffcv_imagenet.__version__,
            **{name: version(name) for name in _PACKAGES},
        },
        "git": _git_state(),
        "hardware": {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
            "cpu_cores": len(os.sched_getaffinity(0)),
            "host": platform.node(),
        },
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _git_state() -> dict[str, Any]:
    """Commit of the source tree and whether it has changes; empty when installed without git."""

    def git(*words: str) -> str:
        source = Path(__file__).parent
        return subprocess.run(["git", *words], cwd=source, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.CalledProcessError):
        return {}
