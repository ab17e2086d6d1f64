"""The page, served on this machine's own address."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ffcv_imagenet.watch.page import render_page
from ffcv_imagenet.watch.standings import Watcher


@contextlib.contextmanager
def serve(port: int, watcher: Watcher, refresh_seconds: int) -> Iterator[int]:
    """Serve the page of ``watcher``'s runs for the length of a ``with`` block; yields the port.

    Only programs of this machine can ask for it. Each request looks at the folders.

    Args:
        port: where to listen; 0: a free one.
        watcher: of the server alone.
        refresh_seconds: how often a browser loads the page again.

    Raises:
        ValueError: no such port.
        OSError: it cannot be listened on.
    """
    lock = threading.Lock()  # each request has a thread of its own

    class Handler(BaseHTTPRequestHandler):
        """Answers with the page, whatever the path."""

        def do_GET(self) -> None:
            with lock:
                content = render_page(watcher.look(), refresh_seconds).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing: the terminal has the table."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OverflowError:
        raise ValueError(f"--html: got port {port}, allowed are 1 to 65535 (a file is ./{port})") from None
    except OSError as error:
        raise OSError(f"--html: port {port} cannot be listened on: {error.strerror}") from None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
