"""Fetches a checkpoint from the Hugging Face Hub, with the user's own token."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from httpx2 import HTTPError
from huggingface_hub import HfApi, constants, get_token, snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

from stepwise.description.family import Family
from stepwise.export.checkpoint.folder import INDEX, SCHEDULER
from stepwise.export.errors import CheckpointError, reason

log = logging.getLogger(__name__)

_WEIGHTS = r"(diffusion_pytorch_model|model)"
# Full precision first, as in ``safetensors_files.weights``.
_VARIANTS = (
    rf"{_WEIGHTS}(-\d+-of-\d+\.safetensors|\.safetensors(\.index\.json)?)",
    rf"{_WEIGHTS}(\.fp16(-\d+-of-\d+)?\.safetensors|\.safetensors\.index\.fp16\.json)",
)


def download(repository: str, family: Family) -> Path:
    """Fetch a repository such as ``stabilityai/sdxl-turbo``; return its folder in the cache.

    Downloads only files that ``family`` needs and the cache lacks. Without a connection the cached
    copy is used. Raises CheckpointError.
    """
    with _refusals_explained(repository):
        try:
            sizes = _sizes(repository)
        except RepositoryNotFoundError:
            raise
        except (HTTPError, ConnectionError) as error:
            return _cached(repository, error)
        # Two components may share a folder.
        wanted = list(dict.fromkeys(_wanted(repository, sizes, family)))
        size = sum(sizes[name] for name in wanted) / 1e9
        log.info("%s: %d files, %.1f GB, from %s", repository, len(wanted), size, _endpoint())
        return Path(snapshot_download(repository, allow_patterns=wanted))


@contextmanager
def _refusals_explained(repository: str) -> Iterator[None]:
    try:
        yield
    except GatedRepoError as error:
        raise CheckpointError(
            f"{_page(repository)} is gated: accept its licence there; {_token_advice()}"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise CheckpointError(
            f"{repository} is no local folder or file, and {_page(repository)} does not exist or "
            f"is private: give the folder or file of a checkpoint, or, {_token_advice()}"
        ) from error
    except (HTTPError, OSError) as error:
        raise CheckpointError(
            f"{_page(repository)} could not be fetched ({reason(error)}); export again to resume "
            "the download"
        ) from error


def _sizes(repository: str) -> dict[str, int]:
    """Bytes of each file of a repository."""
    files = HfApi().model_info(repository, files_metadata=True).siblings or []
    return {file.rfilename: file.size or 0 for file in files}


def _wanted(repository: str, names: Mapping[str, int], family: Family) -> Iterator[str]:
    if INDEX not in names:
        files = [name for name in names if name.endswith(".safetensors")]
        raise CheckpointError(
            f"{_page(repository)} has no {INDEX}, so it is not in the diffusers layout; if it has "
            f"a single-file checkpoint, download and give that ({', '.join(files[:3])})"
        )
    yield from (name for name in (INDEX, SCHEDULER) if name in names)
    for component in family.components:
        yield from (n for n in names if component.tokenizer and _in(n, component.tokenizer))
        yield from (n for n in names if n == f"{component.subfolder}/config.json")
        inside = [name for name in names if _in(name, component.subfolder)]
        variants = ([n for n in inside if _is(n, variant)] for variant in _VARIANTS)
        yield from next(filter(None, variants), [])


def _in(name: str, folder: str) -> bool:
    return name.rpartition("/")[0] == folder


def _is(name: str, variant: str) -> bool:
    return re.fullmatch(variant, name.rpartition("/")[2]) is not None


def _cached(repository: str, error: Exception) -> Path:
    """The cached folder; CheckpointError, with the reason for using the cache, if there is none."""
    try:
        folder = snapshot_download(repository, allow_patterns=[INDEX], local_files_only=True)
    except OSError:
        raise CheckpointError(
            f"{repository} is no local folder or file, and {_endpoint()} cannot be reached "
            f"({reason(error)}): give the folder or file of a checkpoint, or connect to the network"
        ) from error
    log.info("%s: %s cannot be reached; using %s", repository, _endpoint(), folder)
    return Path(folder)


def _token_advice() -> str:
    if get_token() is None:
        return "as no token is set, run `hf auth login` or set HF_TOKEN"
    return "as a token is set, check that its account has access"


def _page(repository: str) -> str:
    return f"{_endpoint()}/{repository}"


def _endpoint() -> str:
    return str(constants.ENDPOINT)
