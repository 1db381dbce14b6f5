"""python -m benchmarks latency|inflight|quality

Measures the exported miniature on a server of its own and writes benchmarks/results/<name>.json.
Run them on an otherwise idle machine.
"""

import argparse
import sys
from pathlib import Path

from benchmarks import inflight, latency, quality, report

ROOT = Path(__file__).parent.parent
REPOSITORY = ROOT / "model_repository"
CHECKPOINTS = ROOT / "miniatures"


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run one benchmark; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("benchmark", choices=("latency", "inflight", "quality"))
    parser.add_argument("--pipeline", default="sd3", help="what to measure (default: sd3)")
    options = parser.parse_args(arguments)
    name = options.pipeline
    measures = {
        "latency": lambda: latency.measure(REPOSITORY, CHECKPOINTS / name, name),
        "inflight": lambda: inflight.measure(REPOSITORY, name),
        "quality": lambda: quality.measure(REPOSITORY, CHECKPOINTS / name, name),
    }
    figures = measures[options.benchmark]()
    report.write(options.benchmark, f"python -m benchmarks {options.benchmark}", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
