"""python -m client sd3 "a large red star in the top left on a white background" --steps 20
python -m client repeat picture.png

Makes pictures with a pipeline of a running server, or repeats one from what its PNG file says.
Beside the options below, every setting of the pipeline is an option of the same name: --steps,
--seed, --guidance-scale, --negative-prompt, --sampler, --num-images, --height, --width. They
follow the prompt; one that is left out gets the server's default, or the file's value.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from client import png
from client.client import Client
from client.errors import ClientError, InvalidRequest
from client.events import Event

_REPEAT = "repeat"


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, make the pictures; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m client",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("pipeline", help=f"a pipeline that the server has, or {_REPEAT!r}")
    parser.add_argument("prompt", help="what the picture should show, or the file to repeat")
    parser.add_argument("--url", default="127.0.0.1:8001", help="the server's gRPC address")
    parser.add_argument("--output", type=Path, default=Path("out.png"), help="file to write")
    parser.add_argument("--timeout", type=float, help="seconds to wait for all pictures")
    options, rest = parser.parse_known_args(arguments)
    try:
        request = _request(options.pipeline, options.prompt, _settings(rest))
        _generate(Client(options.url, options.timeout), request, options.output)
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _request(pipeline: str, prompt: str, settings: dict[str, str]) -> dict[str, Any]:
    """What to ask for: pipeline, prompt and settings in one."""
    if pipeline == _REPEAT:
        return {**png.load(Path(prompt)), **settings}
    return {png.PIPELINE: pipeline, "prompt": prompt, **settings}


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


def _generate(client: Client, request: dict[str, Any], output: Path) -> None:
    settings = dict(request)
    pipeline = settings.pop(png.PIPELINE)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tqdm(unit="step", leave=False) as bar:
        for event in client.generate(pipeline, **settings):
            bar.total, bar.n = event.steps, event.step
            bar.refresh()
            if event.image is not None:
                path = _path(output, event.index)
                png.save(event, path, {**client.defaults(pipeline), **request})
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
