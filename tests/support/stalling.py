"""A TCP proxy that can stop forwarding without closing, like a router that forgets connections."""

import socket
import threading
from contextlib import contextmanager, suppress


class Stalling:
    """Forwards connections to ``url`` until ``stall``."""

    def __init__(self, url: str) -> None:
        host, _, port = url.rpartition(":")
        self._target = host, int(port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listening]
        self._forgotten: set[socket.socket] = set()
        self.url = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self) -> None:
        """Forward nothing more over the present connections, which stay open."""
        self._forgotten = set(self._sockets)

    def close(self) -> None:
        """Close all connections."""
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                inner, _ = self._listening.accept()
                outer = socket.create_connection(self._target)
                self._sockets += inner, outer
                for pair in ((inner, outer), (outer, inner)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if source not in self._forgotten:
                    target.sendall(data)


@contextmanager
def stalling(url: str):
    """Yields a proxy of the server at ``url``."""
    proxy = Stalling(url)
    try:
        yield proxy
    finally:
        proxy.close()
