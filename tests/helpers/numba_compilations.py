"""In which threads numba compiles."""

import contextlib
import threading

from numba.core import event


class _Threads(event.Listener):
    def __init__(self):
        self.threads = []

    def on_start(self, event):
        self.threads.append(threading.current_thread())

    def on_end(self, event):
        pass


@contextlib.contextmanager
def compiling_threads():
    """The threads in which numba compiles a function inside a ``with`` block, one for each function."""
    listener = _Threads()
    with event.install_listener("numba:compile", listener):
        yield listener.threads
