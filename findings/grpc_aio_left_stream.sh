#!/usr/bin/env bash
# A grpc.aio stream that is left before its end logs an error in the next asyncio.run.
#
# Seen with grpcio 1.85.1. A client reads the first message of a stream and leaves; the server ends
# the stream 2 ms later. Expected: the end of asyncio.run ends the call. Seen: the call's last
# operation completes in the next event loop of the process, which logs "Exception in callback
# PollerCompletionQueue._handle_events … RuntimeError: Event loop is closed". Reading the stream to
# its end avoids that. gRPC passes each completed operation to the loop that began it
# (grpc/_cython/_cygrpc/aio/completion_queue.pyx.pxi).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet grpcio==1.85.1
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import logging
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import grpc.aio

RUNS = 100


class Handler(logging.Handler):
    logged: list[str] = []

    def emit(self, record):
        self.logged.append(str(record.exc_info[1]) if record.exc_info else record.getMessage())


def stream(request, context):
    yield b"message"
    time.sleep(0.002)


async def read(port, to_the_end):
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    call = channel.unary_stream("/test/Stream")(b"")
    while await call.read() is not grpc.aio.EOF and to_the_end:
        pass


logger = logging.getLogger("asyncio")
logger.propagate = False
logger.addHandler(Handler())
server = grpc.server(ThreadPoolExecutor(4))
methods = {"Stream": grpc.unary_stream_rpc_method_handler(stream)}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", methods),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
errors = {}
for to_the_end in (True, False):
    Handler.logged.clear()
    for _ in range(RUNS):
        asyncio.run(read(port, to_the_end))
    errors[to_the_end] = len(Handler.logged)
    way = "read to its end" if to_the_end else "left after the first message"
    print(f"grpcio {grpc.__version__}: {errors[to_the_end]} errors in {RUNS} runs, stream {way}")
print(f"the error: {Handler.logged[:1]}, expected none")
server.stop(None)
sys.exit(errors[True] > 0 or errors[False] < RUNS / 2)
PYTHON
