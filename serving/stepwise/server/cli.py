"""``stepwise serve`` serves a model repository until it is stopped; ``stepwise check`` verifies it.

Ctrl-C or SIGTERM stops the server after running requests finish; a second one stops it at once. A
server that dies is started again.
"""

import argparse
import logging
import re
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NoReturn

from stepwise.server.check import check as check_repository
from stepwise.server.errors import NothingToServe, OldExport, ServerError, TritonFailed
from stepwise.server.flags import LOOPBACK, Ports
from stepwise.server.process import Server, serving
from stepwise.server.supervisor import supervise

logger = logging.getLogger("server")

_DEFAULTS = Ports()
_HEADER = re.compile(r"[A-Za-z0-9-]+")


def serve(words: list[str]) -> int:
    """Serve until Ctrl-C or SIGTERM; returns the exit status."""
    return _run(_serve, _serve_parser().parse_args(words))


def check(words: list[str]) -> int:
    """Check the exported pipelines; returns the exit status, 1 if there is a problem."""
    return _run(_check, _check_parser().parse_args(words))


def _run(command: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # SIGTERM stops the server in the same way as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return command(arguments)
    except KeyboardInterrupt:
        logger.info("stopped")
    except ServerError as error:
        if isinstance(error, TritonFailed):
            logger.error("%s\n", error.log_tail)
        logger.error("%s", error)
        return 2 if isinstance(error, NothingToServe | OldExport) else 1
    return 0


def _check(arguments: argparse.Namespace) -> int:
    return 0 if check_repository(arguments.repository, arguments.pipelines) else 1


def _serve(arguments: argparse.Namespace) -> NoReturn:
    if arguments.host not in (LOOPBACK, "localhost"):
        logger.warning(
            "Listening on %s: anyone who can reach these ports can send requests (but not load or "
            "unload models). Triton has no authentication: put a gateway or a firewall in front.",
            arguments.host,
        )

    def start(ports: Ports) -> AbstractContextManager[Server]:
        return serving(
            arguments.repository,
            grpc_port=ports.grpc,
            http_port=ports.http,
            metrics_port=ports.metrics,
            host=arguments.host,
            request_log=arguments.request_log,
            log_prompts=not arguments.hide_prompts,
            names=arguments.pipelines,
            peer_header=arguments.peer_header or "",
            http_inference=arguments.http_inference,
        )

    ports = Ports(arguments.grpc_port, arguments.http_port, arguments.metrics_port)
    if arguments.no_restart:
        with start(ports) as server:
            _announce(server)
            server.wait()
    supervise(start, ports, _announce)


def _announce(server: Server) -> None:
    print(f"Serving {', '.join(server.settings.pipelines)}")
    print(f"  gRPC     {server.grpc_url}")
    print(f"  HTTP     {server.http_url}")
    print(f"  metrics  {server.metrics_url}", flush=True)


def _check_parser() -> argparse.ArgumentParser:
    return _parser(
        "check", "Verify configs, graphs, tokenizers and engines, then make a picture per pipeline."
    )


def _parser(command: str, purpose: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"stepwise {command}",
        description=purpose,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--repository", type=Path, default=Path("model_repository"), help="folder of Triton models"
    )
    parser.add_argument(
        "--pipelines",
        type=_names,
        default=(),
        metavar="NAME[,NAME]",
        help=f"{command} only these pipelines instead of all in the repository",
    )
    return parser


def _serve_parser() -> argparse.ArgumentParser:
    parser = _parser(
        "serve",
        "Serve the exported pipelines of a model repository with Triton, until Ctrl-C. Running "
        "requests are answered first; a second Ctrl-C stops at once. If a process of the server "
        "dies, stops or hangs, the server starts again at the same ports.",
    )
    parser.add_argument("--grpc-port", type=int, default=_DEFAULTS.grpc, help="0: any free port")
    parser.add_argument("--http-port", type=int, default=_DEFAULTS.http, help="0: any free port")
    parser.add_argument(
        "--metrics-port", type=int, default=_DEFAULTS.metrics, help="0: any free port"
    )
    parser.add_argument("--host", default=LOOPBACK, help="IPv4 address to listen on")
    parser.add_argument(
        "--request-log", type=Path, help="append one line of JSON per request to this file"
    )
    parser.add_argument(
        "--hide-prompts", action="store_true", help="leave prompts out of the request log"
    )
    parser.add_argument(
        "--peer-header",
        type=_header,
        metavar="NAME",
        help="header in which a trusted proxy names the sender, such as x-forwarded-for; senders "
        "then get equal shares",
    )
    parser.add_argument(
        "--http-inference",
        action="store_true",
        help="also take requests over HTTP, which pages of other sites can send from a browser",
    )
    parser.add_argument(
        "--no-restart",
        action="store_true",
        help="end with exit status 1 when the server dies, for those who run a supervisor",
    )
    return parser


def _header(text: str) -> str:
    if not _HEADER.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"got {text!r}; a header's name has letters, digits and hyphens"
        )
    return text.lower()


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
