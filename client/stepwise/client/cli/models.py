"""stepwise models
stepwise models --url 10.0.0.1:8001

Lists the pipelines that a running server serves, one per line.
"""

import argparse
import sys

from stepwise.client.cli.options import add_server, headers
from stepwise.client.client import Client
from stepwise.client.errors import ClientError

SECONDS = 10.0


def main(arguments: list[str]) -> int:
    """Parse the command line and print. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="stepwise models",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add_server(parser)
    options = parser.parse_args(arguments)
    try:
        with Client(options.url, SECONDS, headers(options)) as client:
            print("\n".join(client.pipelines()))
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
