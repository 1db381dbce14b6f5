"""Options that commands share."""

import argparse


def add_url(parser: argparse.ArgumentParser) -> None:
    """Add ``--url``, the addresses of servers."""
    parser.add_argument(
        "--url",
        default="127.0.0.1:8001",
        help="the server's gRPC address, or several separated by\n"
        "commas: if one cannot take the request, the next is tried",
    )
