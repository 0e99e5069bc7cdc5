"""Serves this checkout to this machine alone: `make web-demo`, then open the address it prints."""

import http.server
from functools import partial
from pathlib import Path
from typing import ClassVar

ROOT = Path(__file__).parents[2]


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files, with the types that browsers ask for."""

    extensions_map: ClassVar = {
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".wasm": "application/wasm",
    }


def main() -> None:
    """Serve until Ctrl-C."""
    with http.server.ThreadingHTTPServer(
        ("localhost", 8000), partial(Handler, directory=ROOT)
    ) as server:
        print(f"http://localhost:{server.server_port}/web/demo/ (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
