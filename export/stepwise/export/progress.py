"""Progress within a component: a bar on the terminal with the stage that its export is at."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

# Called with what is being done to a component now.
Stage = Callable[[str], None]


@contextmanager
def stages(component: str, total: int) -> Iterator[Stage]:
    """A bar of ``total`` stages, each shown from its call to the next, if there is a terminal."""
    layout = "{desc} |{bar:20}| {n_fmt}/{total_fmt} [{elapsed}]"
    with tqdm(total=total, leave=False, disable=None, bar_format=layout) as bar:

        def stage(name: str) -> None:
            bar.set_description_str(f"{component}: {name}", refresh=False)
            bar.update()

        yield stage


def unseen(_name: str) -> None:
    """A stage that nobody is shown."""
