"""Fair shares of the denoiser for peers, and for the clients of each peer."""

from collections.abc import Iterable

# A client's name is its own choice, so that a share belongs to a peer first: see ``Settings.peer``.
Member = tuple[str, str]


class FairQueueing:
    """Weighted fair queueing with equal weights (Demers, Keshav and Shenker, 1989).

    Work is counted in denoiser rows. Virtual time advances by the rows served, divided by the
    number of clients that share them. A picture's tag is its work plus its client's previous tag,
    or plus the virtual time if that is later. The lowest tag runs next, so a client that submits
    more work waits longer. No picture waits forever, because virtual time passes every tag.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._last: dict[str, float] = {}

    def tag(self, client: str, work: int) -> float:
        """Assign a tag to a client's next picture, which takes ``work`` rows."""
        tag = max(self._now, self._last.get(client, 0.0)) + work
        self._last[client] = tag
        return tag

    def served(self, rows: int, clients: int) -> None:
        """Advance virtual time: ``rows`` were served while ``clients`` waited or ran."""
        self._now += rows / max(clients, 1)
        self._last = {client: tag for client, tag in self._last.items() if tag > self._now}


class Shares:
    """Equal shares for peers, and within a peer's share equal shares for its clients.

    Peers are served by start-time fair queueing (Goyal, Vin and Cheng, 1996): the peer with the
    earliest start runs next, which moves its start by the work, and a peer that comes back starts
    at the virtual time, the start of the peer that was served last.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._starts: dict[str, float] = {}
        self._clients: dict[str, FairQueueing] = {}

    def tag(self, member: Member, work: int) -> float:
        """Assign a tag to the next picture of a peer's client, which takes ``work`` rows."""
        peer, client = member
        return self._clients.setdefault(peer, FairQueueing()).tag(client, work)

    def rank(self, member: Member, tag: float) -> tuple[float, float]:
        """Sort key of a waiting picture, lowest first."""
        return self._start(member[0]), tag

    def admitted(self, member: Member, work: int) -> None:
        """Charge the peer for a picture that runs from now on."""
        self._now = self._start(member[0])
        self._starts[member[0]] = self._now + work
        self._starts = {peer: start for peer, start in self._starts.items() if start > self._now}

    def served(self, rows: Iterable[tuple[Member, int]], present: Iterable[Member]) -> None:
        """Advance virtual time: ``rows`` were served while the clients ``present`` shared them."""
        clients: dict[str, set[str]] = {}
        for peer, client in present:
            clients.setdefault(peer, set()).add(client)
        self._clients = {peer: self._clients[peer] for peer in clients}
        totals = dict.fromkeys(clients, 0)
        for (peer, _), count in rows:
            totals[peer] += count
        for peer, total in totals.items():
            self._clients[peer].served(total, len(clients[peer]))

    def _start(self, peer: str) -> float:
        return max(self._now, self._starts.get(peer, 0.0))
