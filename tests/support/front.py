"""A gRPC front with TLS that checks a header before it forwards a call to a server."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


def certificate(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    """A self-signed certificate for a host, valid for two days, and its key."""
    folder.mkdir(exist_ok=True)
    made, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    files = ["-out", str(made), "-keyout", str(key)]
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run([*command, *files, *subject], check=True, capture_output=True)
    return made, key


class Front(grpc.GenericRpcHandler):
    """Forwards calls that have the header; ``seen`` are the methods of all calls and whether."""

    def __init__(self, channel: grpc.Channel, header: tuple[str, str]) -> None:
        self.seen: list[tuple[str, bool]] = []
        self._channel = channel
        self._header = header

    def service(self, details):
        allowed = self._header in details.invocation_metadata
        self.seen.append((details.method.rpartition("/")[2], allowed))
        if details.method == STREAM:
            forward = self._channel.stream_stream(details.method)
            return grpc.stream_stream_rpc_method_handler(
                lambda requests, context: (allowed and forward(requests)) or refuse(context)
            )
        forward = self._channel.unary_unary(details.method)
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: (allowed and forward(request)) or refuse(context)
        )


def refuse(context):
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "a token is needed")


@contextmanager
def fronted(url: str, files: tuple[Path, Path], header: tuple[str, str]):
    """Yields the front of the server at ``url``, and the front's port."""
    made, key = (path.read_bytes() for path in files)
    with grpc.insecure_channel(url) as channel:
        front = Front(channel, header)
        server = grpc.server(ThreadPoolExecutor(8), handlers=[front])
        credentials = grpc.ssl_server_credentials([(key, made)])
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            yield front, port
        finally:
            server.stop(0).wait()
