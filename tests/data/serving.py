"""A web server for tests, on this machine alone."""

from __future__ import annotations

import http.server
import sys
from typing import Any


class Server(http.server.ThreadingHTTPServer):
    """One that says nothing where a reader hangs up, as readers do that have seen enough."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)
