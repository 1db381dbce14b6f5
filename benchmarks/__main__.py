"""python -m benchmarks latency|inflight|quality

Measures the exported miniature on a server of its own and writes benchmarks/results/<name>.json.
Run them on an otherwise idle machine.
"""

import argparse
import sys
from pathlib import Path

from benchmarks import inflight, latency, quality, report
from pipelines.manifest import Manifest

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
    parser.add_argument(
        "--repository",
        type=Path,
        default=REPOSITORY,
        help="where it was exported to (default: model_repository);\n"
        "results of another precision than fp32 go to <name>_<precision>.json",
    )
    options = parser.parse_args(arguments)
    name, repository = options.pipeline, options.repository
    measures = {
        "latency": lambda: latency.measure(repository, CHECKPOINTS / name, name),
        "inflight": lambda: inflight.measure(repository, name),
        "quality": lambda: quality.measure(repository, CHECKPOINTS / name, name),
    }
    figures = measures[options.benchmark]()
    precision = Manifest.read(repository / f"{name}_prepare").precision
    result = options.benchmark + ("" if precision == "fp32" else f"_{precision}")
    command = ["python -m benchmarks", *(sys.argv[1:] if arguments is None else arguments)]
    report.write(result, " ".join(command), figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
