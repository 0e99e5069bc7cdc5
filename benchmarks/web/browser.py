"""Pages of this checkout, served to this machine alone, and what they say in a headless browser."""

import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

ROOT = Path(__file__).parents[2]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
    --disable-background-networking --disable-component-update"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files, with the types that browsers ask for, apart from other origins.

    That is where browsers share memory among threads.
    """

    extensions_map: ClassVar = {
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def end_headers(self) -> None:
        """The headers, with those that set the page apart."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


class _Listening(Handler):
    """Also files of a folder, below /files/, and ears for what a page says."""

    server: "_Server"

    def translate_path(self, path: str) -> str:
        if path.startswith("/files/"):
            return str(self.server.files / path.removeprefix("/files/"))
        return super().translate_path(path)

    def do_POST(self) -> None:
        self.server.said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self.server.heard.set()

    def log_message(self, *arguments: Any) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    def __init__(self, files: Path):
        super().__init__(("localhost", 0), partial(_Listening, directory=str(ROOT)))
        self.files, self.said, self.heard = files, None, threading.Event()


def browsed(page: str, files: Path, *, seconds: float = 60) -> Any:
    """What a page of this checkout says, as JSON to /said, when a browser shows it.

    Args:
        page: its path in the checkout, with its query.
        files: folder that stands at /files/ and keeps the browser's profile.
        seconds: until it must have said something.

    Raises:
        TimeoutError: when it has not.
    """
    with _Server(files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://localhost:{server.server_port}/{page}"
        with _browser(address, files):
            heard = server.heard.wait(seconds)
        server.shutdown()
    if not heard:
        raise TimeoutError(f"{page} said nothing in {seconds:g} seconds")
    return server.said


@contextmanager
def _browser(address: str, files: Path) -> Iterator[None]:
    assert BROWSER is not None
    command = [BROWSER, *FLAGS.split(), f"--user-data-dir={files / 'profile'}", address]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
