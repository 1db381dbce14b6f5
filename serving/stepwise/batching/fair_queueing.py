"""Fair shares of the denoiser for clients."""


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
