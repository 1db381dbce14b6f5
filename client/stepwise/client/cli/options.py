"""Options that commands share, and command lines with a pipeline's settings as options."""

import argparse
import re
from collections.abc import Sequence

from stepwise.client.errors import InvalidRequest

_OPTION = re.compile(r"(--[a-zA-Z][\w-]*)(?:=(.*))?", re.DOTALL)
_HELP = ("-h", "--help")


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add ``--url``, the addresses of servers, and ``--header``."""
    parser.add_argument(
        "--url",
        default="127.0.0.1:8001",
        help="the server's gRPC address, https://host:port with TLS, or\n"
        "several separated by commas: if one cannot take the\n"
        "request, the next is tried",
    )
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="header for all calls, such as 'Authorization: Bearer …';\nany number of times",
    )


def headers(options: argparse.Namespace) -> dict[str, str]:
    """The values of ``--header`` by name. Raises InvalidRequest, without the value."""
    found = {}
    for header in options.header:
        name, _, value = header.partition(":")
        if not value.strip():
            raise InvalidRequest(
                "--header: give the name and the value as 'NAME: VALUE', in quotes"
            )
        found[name.strip()] = value.strip()
    return found


def parse(
    parser: argparse.ArgumentParser, words: Sequence[str], positionals: Sequence[str]
) -> tuple[argparse.Namespace, dict[str, str]]:
    """The parser's options and positionals, and all other options as settings by name.

    Options are ``--name value`` or ``--name=value`` before, between or after the positionals; after
    ``--`` there are only positionals. Raises InvalidRequest for a missing value and for words that
    are neither.
    """
    known = vars(parser.parse_args([""] * len(positionals)))
    own, settings, values, rest = list[str](), dict[str, str](), list[str](), list(words)
    while rest:
        word = rest.pop(0)
        option = _OPTION.fullmatch(word)
        if word == "--":
            values += rest
            break
        if word in _HELP:
            own.append(word)
        elif option is None:
            values.append(_positional(word))
        else:
            name = option[1][2:].replace("-", "_")
            if known.get(name) is False:
                own.append(word)
                continue
            value = _value(option[1], rest) if option[2] is None else option[2]
            if name in known and name not in positionals:
                own.append(f"{option[1]}={value}")
            else:
                settings[name] = value
    if len(values) > len(positionals):
        raise InvalidRequest(
            f"got {values[len(positionals)]!r} after the {positionals[-1]}; put a text with spaces "
            "in quotes, and give settings as --name value"
        )
    return parser.parse_args([*own, "--", *values]), settings


def _positional(word: str) -> str:
    if word.startswith("-") and not any(map(str.isspace, word)):
        raise InvalidRequest(
            f"got {word!r}; give settings as --name value, and a prompt that begins with a dash "
            "after --"
        )
    return word


def _value(option: str, rest: list[str]) -> str:
    """Take the option's value, which is the next word."""
    if not rest or rest[0].startswith("--"):
        raise InvalidRequest(
            f"{option}: a value is missing; write {option}=VALUE for one that begins with --"
        )
    return rest.pop(0)
