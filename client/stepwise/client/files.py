"""Output files: checked before a request, complete or absent, never over an existing file.

``force`` permits replacing a file; the old one stays until the new one is complete.
"""

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stepwise.client.errors import OutputError


def check(paths: Iterable[Path], *, force: bool = False) -> None:
    """Make the folders of output files, and create and remove a file in the place of each.

    Raises OutputError for a path that exists (without ``force``), that is a folder or a device, or
    that cannot be written.
    """
    for path in paths:
        with _explained(path):
            _check_name(path, force)
            path.parent.mkdir(parents=True, exist_ok=True)
            with _partial(path):
                pass


@contextmanager
def written(path: Path, *, force: bool = False) -> Iterator[Path]:
    """An empty file next to ``path`` for the body to write, renamed to ``path`` after the body.

    An error in the body and Ctrl-C leave no file. Raises OutputError as ``check`` does, and for an
    OSError in the body.
    """
    with _explained(path):
        _check_name(path, force)
        # Follows a link, so that its file is replaced and not the link.
        target = path.resolve() if force else path
        with _partial(target) as partial:
            yield partial
            if force:
                partial.replace(target)
            else:
                _rename(partial, target)


def _rename(partial: Path, path: Path) -> None:
    """Rename without replacing: taking the name fails if it exists by now."""
    path.touch(exist_ok=False)
    try:
        partial.replace(path)
    except BaseException:
        path.unlink()
        raise


def _check_name(path: Path, force: bool) -> None:
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file")
    if force and path.exists() and not path.is_file():
        raise OutputError(f"{path} is not a regular file; give the name of another file")
    if not force and (path.exists() or path.is_symlink()):
        raise exists(path)
    file = next((parent for parent in path.parents if parent.is_file()), None)
    if file is not None:
        raise OutputError(f"{path} cannot be written: {file} is a file, not a folder")


def exists(path: Path) -> OutputError:
    """The error for a file that is not replaced."""
    return OutputError(f"{path} exists; give another name, or replace it with --force (force=True)")


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """An empty hidden file next to ``path``, removed afterwards if it is still there."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:  # before the file exists, because Ctrl-C may arrive as soon as it does
        partial.touch(exist_ok=False)
        yield partial
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Convert OSErrors, except for a closed pipe of the command's own output."""
    try:
        yield
    except BrokenPipeError:
        raise
    except FileExistsError as error:
        raise exists(path) from error
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}; make room, or give another place"
        ) from error
