"""A repository of links to the same exported models, with other batch caps."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness.workload import Resolution

CAPS = "caps.json"


def write(folder: Path, caps: dict[Resolution, int]) -> Path:
    """Write the rows per denoiser call by (height, width) into the folder of ``<name>``."""
    path = folder / CAPS
    lines = {f"{width}x{height}": rows for (height, width), rows in caps.items()}
    path.write_text(json.dumps(lines, indent=2) + "\n")
    return path


@contextmanager
def one_at_a_time(repository: Path, name: str, sizes: Iterable[Resolution]) -> Iterator[Path]:
    """A temporary repository that denoises pictures of these sizes one at a time."""
    with tempfile.TemporaryDirectory(prefix="stepwise-capped-") as temporary:
        folder = Path(temporary)
        for model in repository.resolve().iterdir():
            if model.name != name:
                (folder / model.name).symlink_to(model)
        shutil.copytree(repository / name, folder / name)
        write(folder / name, dict.fromkeys(sizes, 1))
        yield folder
