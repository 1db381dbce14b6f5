"""The sender of a request, as a trusted front names it in a header.

Triton forwards the header that ``STEPWISE_PEER_HEADER`` names as a parameter of the request;
``stepwise serve --peer-header`` sets both.
"""

import os
from collections.abc import Mapping

from stepwise.description.errors import InvalidRequest
from stepwise.description.family import Family

VARIABLE = "STEPWISE_PEER_HEADER"
_LONGEST = 256


def header() -> str:
    """The name of the header in lower case, "" without a trusted front."""
    return os.environ.get(VARIABLE, "").lower()


def peer(parameters: Mapping[str, object], name: str, family: Family) -> str:
    """The sender in the header called ``name``; "" if there is no such header.

    Raises InvalidRequest for a request that gives one itself under another spelling, and for any
    other parameter: over HTTP a misspelt field becomes one.
    """
    senders = {given: value for given, value in parameters.items() if given.lower() == name}
    unknown = parameters.keys() - (senders.keys() if name else ())
    if unknown:
        allowed = ", ".join(tensor.name for tensor in family.request)
        raise InvalidRequest(f"{min(unknown)}: there is no such setting; allowed are {allowed}")
    if len(senders) > 1:
        raise InvalidRequest(f"{name}: got it twice, as {', '.join(sorted(senders))}; leave it out")
    return next((str(value)[:_LONGEST] for value in senders.values()), "")
