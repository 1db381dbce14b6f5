#!/usr/bin/env bash
# grpc.keepalive_timeout_ms has no effect: a dead connection is noticed after a minute.
#
# Seen with grpcio 1.85.1. A proxy stops forwarding a silent stream and leaves its connection open;
# grpc.keepalive_time_ms and grpc.keepalive_timeout_ms are 500. Expected: UNAVAILABLE after about
# one second. Seen: after 60.5 seconds, and after 1 second with grpc.http2.ping_timeout_ms=500. The
# timer of the keepalive timeout starts only if it runs already, so never; the default of the ping
# timeout, a minute, remains (keepalive_ping_timeout_handle in end_write,
# src/core/ext/transport/chttp2/transport/writing.cc; https://github.com/grpc/grpc/pull/39239).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet grpcio==1.85.1
"$folder/venv/bin/python" - <<'PYTHON'
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

KEEPALIVE = (
    ("grpc.keepalive_time_ms", 500),
    ("grpc.keepalive_timeout_ms", 500),
    # Without gRPC's pings that measure bandwidth, keepalive sends the only one.
    ("grpc.http2.bdp_probe", 0),
)
# In the order in which they end.
WAYS = {
    "keepalive_timeout_ms and ping_timeout_ms": (*KEEPALIVE, ("grpc.http2.ping_timeout_ms", 500)),
    "keepalive_timeout_ms alone": KEEPALIVE,
}


def stream(request, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    yield b"message"
    ended.wait()


def accept(listening, port):
    while True:
        inner, _ = listening.accept()
        outer = socket.create_connection(("127.0.0.1", port))
        for pair in ((inner, outer), (outer, inner)):
            threading.Thread(target=pump, args=pair, daemon=True).start()


def pump(source, target):
    while data := source.recv(65536):
        if not stalled.is_set():
            target.sendall(data)


def start(options):
    channel = grpc.insecure_channel(f"127.0.0.1:{listening.getsockname()[1]}", options)
    call = channel.unary_stream("/test/Stream")(b"", timeout=120)
    next(call)
    return call


stalled = threading.Event()
server = grpc.server(ThreadPoolExecutor(len(WAYS)))
methods = {"Stream": grpc.unary_stream_rpc_method_handler(stream)}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", methods),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
listening = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=accept, args=(listening, port), daemon=True).start()
calls = {way: start(options) for way, options in WAYS.items()}
stalled.set()
began = time.monotonic()
seconds = {}
for way, call in calls.items():
    code = call.code()
    seconds[way] = time.monotonic() - began
    print(f"grpcio {grpc.__version__}, {way}: {code.name} ({call.details()}) {seconds[way]:.1f} s")
print("after the connection died; expected about 1 s for both")
server.stop(None)
fast, slow = seconds.values()
sys.exit(fast > 30 or slow < 30)
PYTHON
