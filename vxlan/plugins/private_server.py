"""A server on a unix socket that only its owner may use; each connection has a thread."""

from __future__ import annotations

import socketserver
from contextlib import suppress
from pathlib import Path
from typing import Any

from vxlan import unixsock
from vxlan.bounded import BoundedThreads


class PrivateServer(BoundedThreads, socketserver.UnixStreamServer):
    """`serve_forever`, then `close`.  OSError if there can be no socket at `path`."""

    def __init__(self, path: Path, handler: type[socketserver.BaseRequestHandler]) -> None:
        self.path = path
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        super().__init__(str(path), handler)

    def server_bind(self) -> None:
        """Nobody else's from the first moment."""
        with unixsock.private():
            super().server_bind()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or spoke something else, is no trouble of ours."""

    def close(self) -> None:
        """Take the socket away; requests that are being answered go on to their end."""
        self.server_close()
        with suppress(OSError):
            self.path.unlink()
