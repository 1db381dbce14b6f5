"""python -m client sd3 "a large red star in the top left on a white background" --steps 20

Makes pictures with a pipeline of a running server. Beside the options below, every setting of
the pipeline is an option of the same name: --steps, --seed, --guidance-scale, --negative-prompt,
--sampler, --num-images, --height, --width. They follow the prompt; one that is left out gets the
server's default.
"""

import argparse
import sys
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from client.client import Client
from client.errors import ClientError, InvalidRequest
from client.events import Event


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, make the pictures; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m client",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("pipeline", help="a pipeline that the server has, for example sd3")
    parser.add_argument("prompt", help="what the picture should show")
    parser.add_argument("--url", default="127.0.0.1:8001", help="the server's gRPC address")
    parser.add_argument("--output", type=Path, default=Path("out.png"), help="file to write")
    options, rest = parser.parse_known_args(arguments)
    try:
        settings = _settings(rest)
        _generate(Client(options.url), options, settings)
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _settings(rest: list[str]) -> dict[str, str]:
    """Pairs of ``--name value`` or ``--name=value`` as settings by name."""
    words, settings = list(rest), {}
    while words:
        option, has_value, value = words.pop(0).partition("=")
        if not option.startswith("--"):
            raise InvalidRequest(f"got {option!r}; settings are given as --name value")
        if not has_value:
            if not words:
                raise InvalidRequest(f"{option}: a value is missing")
            value = words.pop(0)
        settings[option[2:].replace("-", "_")] = value
    return settings


def _generate(client: Client, options: argparse.Namespace, settings: dict[str, str]) -> None:
    with tqdm(unit="step", leave=False) as bar:
        for event in client.generate(options.pipeline, options.prompt, **settings):
            bar.total, bar.n = event.steps, event.step
            bar.refresh()
            if event.image is not None:
                path = _path(options.output, event.index)
                Image.fromarray(event.image).save(path)
                bar.write(_summary(event, path))


def _path(output: Path, index: int) -> Path:
    """``out.png`` for the first picture, ``out-1.png`` and so on for the others."""
    return output if index == 0 else output.with_stem(f"{output.stem}-{index}")


def _summary(event: Event, path: Path) -> str:
    notes = "".join(f"\n  note: {note}" for note in event.notes)
    return (
        f"{path}  seed {event.seed}  {event.steps} steps  "
        f"{event.queued_ms + event.denoising_ms:.0f} ms{notes}"
    )


if __name__ == "__main__":
    sys.exit(main())
