"""Files written by torch.save, read without running code from them and not when a bit has changed."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch


def read_tensor_file(path: Path) -> Any:
    """The tensors and plain values in ``path``, on the CPU.

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
        return torch.load(content, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch's message proposes to run the code
        raise ValueError("damaged, or more than tensors and plain values in it") from None
    except Exception as error:
        raise ValueError((str(error) or type(error).__name__).splitlines()[0]) from None
