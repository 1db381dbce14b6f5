"""``python -m export``: a checkpoint into a model repository."""

import argparse
import logging
import re
import sys
import time
from pathlib import Path

from export import report
from export.checkpoint import digest, open_checkpoint
from export.configs import REPOSITORY, write_committed
from export.errors import CheckpointError, ExportError
from export.target import Target, is_finished
from pipelines import PIPELINES

log = logging.getLogger("export")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Export a checkpoint to ONNX graphs, check them against torch, and write "
        "them with their Triton configs, tokenizers and manifest into a model repository. "
        "What is already there from the same checkpoint is kept.",
    )
    parser.add_argument("pipeline", choices=sorted(PIPELINES), help="the family of the checkpoint")
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="a folder in the diffusers layout"
    )
    parser.add_argument(
        "--repository", type=Path, default=REPOSITORY, help="where to write (default: %(default)s)"
    )
    parser.add_argument(
        "--name", type=_name, help="what Triton is to call the pipeline (default: its family)"
    )
    return parser.parse_args()


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", text):
        raise argparse.ArgumentTypeError(
            f"got {text!r}; letters, digits, - and _ are allowed, the first a letter or digit"
        )
    return text


def run(arguments: argparse.Namespace) -> None:
    """Export what the arguments name unless it is there already, and print the parity table."""
    start = time.monotonic()
    pipeline = PIPELINES[arguments.pipeline]
    checkpoint = open_checkpoint(arguments.checkpoint, pipeline)
    target = Target(checkpoint, arguments.repository, arguments.name or pipeline.family)
    write_committed(pipeline, target.name, target.repository)
    log.info("reading %s", checkpoint.folder)
    source = digest(checkpoint)
    if is_finished(target, source):
        log.info("%s: reused; it was made from the same checkpoint", target.prepare)
        print(report.table(report.read(target.prepare)))
        return
    for name in checkpoint.missing:
        log.info("%s: missing from the checkpoint; zeros take its place", name)
    # Takes seconds to import, which an export that is already there need not wait for.
    from export.repository import export

    rows = export(target, source)
    log.info("%s: exported in %.0f s", target.repository, time.monotonic() - start)
    print(report.table(rows))


def main() -> int:
    """Exit status: 0 done, 1 a graph is wrong, 2 the checkpoint is."""
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    try:
        run(_arguments())
    except ExportError as error:
        print(f"export: {error}", file=sys.stderr)
        return 2 if isinstance(error, CheckpointError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
