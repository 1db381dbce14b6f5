"""The file of one result, in the format of its suffix."""

from pathlib import Path

from stepwise.client.errors import InvalidRequest
from stepwise.client.events import Event
from stepwise.client.media import png, video


def save(event: Event, path: Path, *, force: bool = False) -> None:
    """Write a picture or a whole video; documented at ``Event.save``."""
    if event.kind != "result":
        raise InvalidRequest(f"save: got a {event.kind} event; only results can be saved")
    if event.frames is None:
        _check_suffix(path, "picture", (".png",))
        png.save(event, path, event.request, force=force)
    else:
        _check_suffix(path, "video", tuple(video.KINDS))
        frames = int(event.request["frames"])
        if len(event.frames) != frames:
            raise InvalidRequest(
                f"save: got {len(event.frames)} of the video's {frames} frames; call video() for "
                "an event with all of them"
            )
        video.save([event], path, event.request, force=force)


def _check_suffix(path: Path, made: str, suffixes: tuple[str, ...]) -> None:
    if path.suffix.lower() not in suffixes:
        raise InvalidRequest(
            f"save: got {path}; the name of a {made}'s file must end in {' or '.join(suffixes)}"
        )
