"""A progress bar on the terminal with the current stage of a component's export."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

# Called with the name of a component's current stage.
Stage = Callable[[str], None]


@contextmanager
def stages(component: str, total: int) -> Iterator[Stage]:
    """Show a bar of ``total`` stages if there is a terminal; each call starts the next stage."""
    layout = "{desc} |{bar:20}| {n_fmt}/{total_fmt} [{elapsed}]"
    with tqdm(total=total, leave=False, disable=None, bar_format=layout) as bar:

        def stage(name: str) -> None:
            bar.set_description_str(f"{component}: {name}", refresh=False)
            bar.update()

        yield stage


def unseen(_name: str) -> None:
    """A stage without a progress bar."""
