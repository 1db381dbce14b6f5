"""Serves a web page on this machine: pictures and videos, previews while they are made, and a log
of requests. Samplers, defaults and ranges come from the server. Cancel also cancels the browser's
requests on the server, and so does closing the tab or stopping the page.

Pictures, videos and uploads are kept until their browser leaves. Downloads contain their request:
stepwise repeat FILE makes them again, with the same input pictures.
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
from stepwise.client.cli.options import add_server, headers
from stepwise.client.client import Client
from stepwise.client.errors import ClientError
from stepwise.client.protocol import About

_HOST = "127.0.0.1"
# Bytes: enough for a large photograph if a pipeline takes pictures, otherwise no upload.
_MOST_UPLOADED, _NO_UPLOAD = 32 * 2**20, 1
# A signal delivered to another thread does not wake the main thread's sleep.
_LOOK_SECONDS = 0.5


def main(arguments: list[str]) -> int:
    """Parse the command line and serve the page until Ctrl-C. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="stepwise page",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add_server(parser)
    parser.add_argument("--port", type=int, default=7860, help="the page's port (default: 7860)")
    parser.add_argument(
        "--pipeline",
        nargs="+",
        default=["sd3"],
        metavar="NAME",
        help="pipelines to offer on the page (default: sd3)",
    )
    options = parser.parse_args(arguments)
    if find_spec("gradio") is None:
        # Reported before the server is called.
        raise ModuleNotFoundError("the page needs gradio", name="gradio")
    try:
        with Client(options.url, headers=headers(options)) as client:
            abouts = {name: client.about(name) for name in options.pipeline}
        _serve(AsyncClient(options.url, headers=headers(options)), options.port, abouts)
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _serve(client: AsyncClient, port: int, abouts: dict[str, About]) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with TemporaryDirectory(prefix="stepwise-page-") as folder, suppress(KeyboardInterrupt):
        # Gradio creates its folder when imported, and the other commands do not need gradio.
        os.environ["GRADIO_TEMP_DIR"] = folder
        from stepwise.client.page import html, layout
        from stepwise.client.page.handlers import Page

        page = Page(client, abouts, Path(folder))
        uploaded = _MOST_UPLOADED if any(one.images for one in abouts.values()) else _NO_UPLOAD
        url = _launch(layout.blocks(page), port, html.CSS, uploaded)
        try:
            print(f"the page is at {url} (Ctrl-C stops it)", flush=True)
            while True:
                time.sleep(_LOOK_SECONDS)
        finally:
            page.stop()  # closing gradio instead would wait for open browsers


def _launch(blocks: Any, port: int, css: str, uploaded: int) -> str:
    """Serve in a thread. Returns the address; raises ClientError if the port is not available."""
    from starlette.middleware import Middleware

    from stepwise.client.page.guard import Guard

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
            app_kwargs={"middleware": [Middleware(Guard)]},
        )
    except OSError as error:
        raise ClientError(f"port {port} is taken or not allowed; give another --port") from error
    return str(url)
