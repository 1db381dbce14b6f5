"""``python -m server``: serve a model repository until told to stop. ``check``: see that it works.

Stops on Ctrl-C and SIGTERM once running requests are answered; a second one stops at once.
"""

import argparse
import logging
import signal
import sys
from pathlib import Path

from server.check import check
from server.errors import NothingToServe, OldExport, ServerError, TritonFailed
from server.flags import LOOPBACK, Ports
from server.process import Server, serving

logger = logging.getLogger("server")

_DEFAULTS = Ports()


def main() -> int:
    """Run the command line; returns the exit status."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # SIGTERM takes the same way out as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if arguments.command == "check":
            return 0 if check(arguments.repository, arguments.pipelines) else 1
        _serve(arguments)
    except KeyboardInterrupt:
        logger.info("stopped")
    except ServerError as error:
        if isinstance(error, TritonFailed):
            logger.error("%s\n", error.log_tail)
        logger.error("%s", error)
        return 2 if isinstance(error, NothingToServe | OldExport) else 1
    return 0


def _serve(arguments: argparse.Namespace) -> None:
    if arguments.host not in (LOOPBACK, "localhost"):
        logger.warning(
            "Listening on %s: whoever reaches these ports can ask for pictures (but not load or "
            "unload models). Triton asks for no password: put a gateway or a firewall before it.",
            arguments.host,
        )
    with serving(
        arguments.repository,
        grpc_port=arguments.grpc_port,
        http_port=arguments.http_port,
        metrics_port=arguments.metrics_port,
        host=arguments.host,
        request_log=arguments.request_log,
        log_prompts=not arguments.hide_prompts,
        names=arguments.pipelines,
    ) as server:
        _announce(server)
        server.wait()


def _announce(server: Server) -> None:
    print(f"Serving {', '.join(server.settings.pipelines)}")
    print(f"  gRPC     {server.grpc_url}")
    print(f"  HTTP     {server.http_url}")
    print(f"  metrics  {server.metrics_url}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description="Serve the exported pipelines of a model repository with Triton, until Ctrl-C. "
        "Running requests are answered first; a second Ctrl-C stops at once.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=("serve", "check"),
        default="serve",
        help="check: verify configs, graphs and tokenizers, then make a picture per pipeline",
    )
    parser.add_argument(
        "--repository", type=Path, default=Path("model_repository"), help="folder of Triton models"
    )
    parser.add_argument(
        "--pipelines",
        type=_names,
        default=(),
        metavar="NAME[,NAME]",
        help="serve or check these alone, instead of all in the repository",
    )
    parser.add_argument("--grpc-port", type=int, default=_DEFAULTS.grpc, help="0: any free port")
    parser.add_argument("--http-port", type=int, default=_DEFAULTS.http, help="0: any free port")
    parser.add_argument(
        "--metrics-port", type=int, default=_DEFAULTS.metrics, help="0: any free port"
    )
    parser.add_argument("--host", default=LOOPBACK, help="IPv4 address to listen on")
    parser.add_argument(
        "--request-log", type=Path, help="file to append a line of JSON to for each request"
    )
    parser.add_argument(
        "--hide-prompts", action="store_true", help="leave prompts out of the request log"
    )
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


if __name__ == "__main__":
    sys.exit(main())
