"""Usage: python3 deploy/healthcheck.py [PORT]

Exits with 0 if the server on this machine is ready for requests, else prints why and exits with 1.
"""

import sys
import urllib.request


def main(port: str = "8000") -> int:
    """Ask Triton's HTTP interface whether every model is ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5):
            return 0
    except OSError as error:
        print(f"not ready on port {port}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
