"""A temporary file for what can only be read once, from its beginning, so that it can be read in any order."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

from ffcv_imagenet.names import shown


class Spool:
    """A file without a name in TMPDIR, which goes with the process.

    Args:
        what: is written to it, for messages.
    """

    def __init__(self, what: str):
        self._what = what
        with self._naming():
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by finish)

    def write(self, content: bytes) -> None:
        """Append; raises OSError where there is no room, with what to do."""
        with self._naming():
            self._file.write(content)

    def finish(self) -> int:
        """The file's descriptor to read from, which the caller has to close; raises as :meth:`write`."""
        with self._naming():
            self._file.flush()
            descriptor = os.dup(self._file.fileno())
            self._file.close()
        return descriptor

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            folder = shown(tempfile.gettempdir())
            raise OSError(
                f"cannot unpack {shown(self._what)} in {folder}: {error.strerror} (TMPDIR=FOLDER takes another folder)"
            ) from error
