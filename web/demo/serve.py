"""Serves this checkout to this machine alone: `make web-demo`, then open the address it prints."""

import http.server
from functools import partial

from benchmarks.web.browser import ROOT, Handler


def main() -> None:
    """Serve until Ctrl-C."""
    handler = partial(Handler, directory=str(ROOT))
    with http.server.ThreadingHTTPServer(("localhost", 8000), handler) as server:
        print(f"http://localhost:{server.server_port}/web/demo/ (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
