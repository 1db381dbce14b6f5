"""Measures an exported pipeline on a server that it starts itself.

Writes benchmarks/results/<benchmark>_<pipeline>.json, or for a precision other than fp32
<benchmark>_<pipeline>_<precision>.json. Run it on an otherwise idle machine.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.commands import (
    batch_caps,
    batching_gain,
    cancels,
    colocated,
    door,
    latency,
    leavers,
    load,
    overhead,
    perf_analyzer,
    quality,
    recovery,
    soak,
    video_decoder,
    video_quality,
)
from benchmarks.harness import results
from miniatures import prompts
from stepwise.description.manifest import Manifest
from stepwise.export.loading.source import open_checkpoint
from stepwise.families import FAMILIES
from stepwise.server.process import serving

ROOT = Path(__file__).parent.parent
REPOSITORY = ROOT / "model_repository"
CHECKPOINTS = ROOT / "miniatures"

BENCHMARKS = {
    "latency": latency,
    "inflight": batching_gain,
    "quality": quality,
    "load": load,
    "together": colocated,
    "caps": batch_caps,
    "perf": perf_analyzer,
    "soak": soak,
    "cancels": cancels,
    "leavers": leavers,
    "door": door,
    "overhead": overhead,
    "recovery": recovery,
    "videos": video_quality,
    "decoder": video_decoder,
}
OF_VIDEOS, OF_EITHER = ("videos", "decoder"), ("together", "leavers", "recovery")


def main(arguments: list[str] | None = None) -> int:
    """Run one benchmark. Returns the exit status, 1 if one of its checks failed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    name, repository = options.pipeline, options.repository
    manifest = Manifest.read(repository / name)
    precision, of_videos = manifest.precision, manifest.video is not None
    if options.benchmark not in OF_EITHER and of_videos != (options.benchmark in OF_VIDEOS):
        made = "videos" if of_videos else "pictures"
        known = OF_VIDEOS if of_videos else tuple(n for n in BENCHMARKS if n not in OF_VIDEOS)
        parser.error(f"{name} makes {made}; benchmarks for {made}: {', '.join(known)}")
    suffix = "" if precision == "fp32" else f"_{precision}"
    suffix += "_quantized" * options.quantized
    result = f"{options.benchmark}_{name}{suffix}"
    served = {
        "latency": lambda server: latency.measure(server, CHECKPOINTS / name, name),
        "load": lambda server: load.measure(server, name, results.RESULTS / f"{result}.png"),
        "together": lambda server: colocated.measure(server, name),
        "perf": lambda server: perf_analyzer.measure(server, name),
        "soak": lambda server: soak.measure(server, name, 60 * options.minutes),
        "cancels": lambda server: cancels.measure(server, name),
        "leavers": lambda server: leavers.measure(server),
        "door": lambda server: door.measure(server, name),
        "overhead": lambda server: overhead.measure(server, name, options.steps, options.other),
        "quality": lambda server: quality.measure(server, CHECKPOINTS / name, name, prompts.load()),
    }
    others = {
        "inflight": lambda: batching_gain.measure(repository, name),
        "recovery": lambda: recovery.measure(repository, name),
        "caps": lambda: batch_caps.measure(repository, name, write=options.write),
        "videos": lambda: video_quality.measure(repository, CHECKPOINTS / name, name),
        "decoder": lambda: video_decoder.measure(repository, name),
        "quality": lambda: _quantized(repository, name),
    }
    if options.benchmark in served and not options.quantized:
        with serving(repository, http_inference=options.benchmark == "leavers") as server:
            figures = served[options.benchmark](server)
    else:
        figures = others[options.benchmark]()
    command = ["python -m benchmarks", *(sys.argv[1:] if arguments is None else arguments)]
    results.write(result, " ".join(command), figures)
    return 1 if figures.get("failures") else 0


def _quantized(repository: Path, name: str) -> dict[str, Any]:
    # The stock tools take seconds to import.
    from benchmarks.quantization import table

    checkpoint = open_checkpoint(CHECKPOINTS / name, FAMILIES[name])
    return table.measure(
        repository, checkpoint, prompts.load(), ROOT / "docs" / f"quantized_{name}.png"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    purposes = [
        f"{name:10}{str(made.__doc__).splitlines()[0]}" for name, made in BENCHMARKS.items()
    ]
    parser.add_argument("benchmark", choices=BENCHMARKS, help="\n".join(purposes))
    parser.add_argument("--pipeline", default="sd3", help="pipeline to measure (default: sd3)")
    parser.add_argument(
        "--repository",
        type=Path,
        default=REPOSITORY,
        help="repository with the exported pipeline (default: model_repository)",
    )
    parser.add_argument("--minutes", type=float, default=20, help="duration of soak (default: 20)")
    parser.add_argument(
        "--steps", type=int, default=1, help="overhead: denoising steps (default: 1)"
    )
    parser.add_argument(
        "--other", type=int, metavar="PORT", help="overhead: gRPC port of a server to compare with"
    )
    parser.add_argument(
        "--write", action="store_true", help="caps: write caps.json, which the server reads"
    )
    parser.add_argument(
        "--quantized",
        action="store_true",
        help="quality: compare MixDQ with stock tools and draw docs/quantized_<pipeline>.png",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
