"""A page for a browser on this machine: pictures and videos, previews while they are made, and a
log of requests. Samplers, defaults and ranges are those of the server. Cancel stops
what the browser has asked for on the server too, and so does closing the tab or the page.

Pictures, videos and uploads are kept until their browser leaves. Downloads say how they were made:
stepwise repeat FILE makes them again, and takes the pictures of a video again.
"""

import argparse
import os
import signal
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stepwise.client.async_client import AsyncClient
from stepwise.client.client import Client
from stepwise.client.errors import ClientError
from stepwise.client.protocol import About

_HOST = "127.0.0.1"
# Bytes: a large photograph where videos may start from one, and nothing elsewhere.
_MOST_UPLOADED, _NO_UPLOAD = 32 * 2**20, 1
# The system may hand a signal to any thread, and only if that is the first one does it wake it.
_LOOK_SECONDS = 0.5


def main(arguments: list[str]) -> int:
    """Parse the command line and serve the page until Ctrl-C; the exit status."""
    parser = argparse.ArgumentParser(
        prog="stepwise page",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        "--url", default="127.0.0.1:8001", help="the server's gRPC address; several by commas"
    )
    parser.add_argument("--port", type=int, default=7860, help="the page's port (default: 7860)")
    parser.add_argument(
        "--pipeline",
        nargs="+",
        default=["sd3"],
        metavar="NAME",
        help="pipelines of the server to choose from (default: sd3)",
    )
    options = parser.parse_args(arguments)
    if find_spec("gradio") is None:
        # Said before a server is asked for anything.
        raise ModuleNotFoundError("the page needs gradio", name="gradio")
    try:
        client = Client(options.url)
        _serve(options.url, options.port, {name: client.about(name) for name in options.pipeline})
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _serve(url: str, port: int, abouts: dict[str, About]) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with TemporaryDirectory(prefix="stepwise-page-") as folder, suppress(KeyboardInterrupt):
        # Gradio makes its folder when it is imported; whoever wants no page need not have it.
        os.environ["GRADIO_TEMP_DIR"] = folder
        from stepwise.client.page import html, layout
        from stepwise.client.page.handlers import Page

        page = Page(AsyncClient(url), abouts, Path(folder))
        uploaded = _MOST_UPLOADED if any(one.images for one in abouts.values()) else _NO_UPLOAD
        url = _launch(layout.blocks(page), port, html.CSS, uploaded)
        try:
            print(f"the page is at {url} (Ctrl-C stops it)", flush=True)
            while True:
                time.sleep(_LOOK_SECONDS)
        finally:
            page.stop()  # its thread ends with the process; browsers that stay would hold it up


def _launch(blocks: Any, port: int, css: str, uploaded: int) -> str:
    """Serve in a thread; the address. Raises ClientError if the port is not to be had."""
    try:
        _, url, _ = blocks.launch(
            server_name=_HOST,
            server_port=port,
            prevent_thread_lock=True,
            inbrowser=False,
            share=False,
            ssr_mode=False,
            quiet=True,
            css=css,
            footer_links=[],
            run_history=False,
            max_file_size=uploaded,
        )
    except OSError as error:
        raise ClientError(f"port {port} is taken or not allowed; give another --port") from error
    return str(url)
