"""``stepwise``: this distribution's commands, and those that other distributions plug in.

A command is imported when it is called, so that help is fast and each command needs only its own
libraries. Other distributions register theirs in the entry point group ``stepwise.commands``: a
function that takes the words after the command and returns the exit status.
"""

import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points, version

GROUP = "stepwise.commands"
DISTRIBUTION = "stepwise-client"

Command = Callable[[list[str]], int]

# By name: module, function, the extra with its libraries, and a line of help.
_OWN: Mapping[str, tuple[str, str, str, str]] = {
    "generate": (
        *("stepwise.client.cli.generate", "generate", "cli"),
        "make pictures on a running server",
    ),
    "video": ("stepwise.client.cli.generate", "video", "cli", "make a video"),
    "repeat": (
        *("stepwise.client.cli.generate", "repeat", "cli"),
        "make the picture or video in a file again",
    ),
    "models": ("stepwise.client.cli.models", "main", "", "list the pipelines of a running server"),
    "presets": (
        *("stepwise.client.presets.cli", "main", ""),
        "list the settings that checkpoint authors recommend",
    ),
    "page": ("stepwise.client.page.cli", "main", "page", "serve a page for a browser"),
}
# The modules that each extra installs.
_LIBRARIES = {"": (), "cli": ("PIL", "av", "tqdm"), "page": ("PIL", "av", "gradio", "tqdm")}
# Commands of Stepwise's other distributions, installed or not.
_OTHERS = {
    "export": ("stepwise-export", "export a checkpoint into a model repository"),
    "serve": ("stepwise-serving", "serve a model repository with Triton"),
    "check": ("stepwise-serving", "check that a model repository is whole and makes pictures"),
}


def main(words: list[str] | None = None) -> int:
    """Run a command line. Returns the exit status, 2 for an unknown command."""
    words = sys.argv[1:] if words is None else words
    name = words[0] if words else "--help"
    try:
        if name in ("-h", "--help", "help"):
            print(_help())
            return 0 if words else 2
        if name == "--version":
            print(f"stepwise {version(DISTRIBUTION)}")
            return 0
        status = _run(name, words[1:])
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader closed the pipe. Without this, Python flushes stdout at exit and fails again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _help() -> str:
    lines = [f"  {name:10}{row[-1]}" for name, row in (*_OWN.items(), *_OTHERS.items())]
    further = sorted(set(entry_points(group=GROUP).names) - _OTHERS.keys())
    return "\n".join(
        (
            "usage: stepwise COMMAND …",
            "",
            *lines,
            *(f"  {name}" for name in further),
            "",
            "stepwise COMMAND --help shows its options, stepwise --version the version.",
        )
    )


def _run(name: str, words: list[str]) -> int:
    if name in _OWN:
        return _run_own(name, words)
    for point in entry_points(group=GROUP, name=name):
        command: Command = point.load()
        return command(words)
    if name in _OTHERS:
        told = f"stepwise {name} comes with {_OTHERS[name][0]}: pip install {_OTHERS[name][0]}"
    else:
        known = ", ".join((*_OWN, *_OTHERS))
        told = f"got the command {name!r}; allowed are {known}"
    print(f"error: {told}", file=sys.stderr)
    return 2


def _run_own(name: str, words: list[str]) -> int:
    module, function, extra, _ = _OWN[name]
    try:
        command: Command = getattr(import_module(module), function)
        return command(words)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in _LIBRARIES[extra]:
            raise
        wanted = f"pip install '{DISTRIBUTION}[{extra}]'"
        print(f"error: stepwise {name} needs {error.name}: {wanted}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
