"""Fair shares of the denoiser for clients."""


class FairQueueing:
    """Weighted fair queueing with equal weights (Demers, Keshav and Shenker, 1989).

    Work is counted in denoiser rows. Virtual time passes by the rows served, divided among the
    clients that share them. A client's pictures get tags one after another, each as far from the
    one before as its work: the lowest tag is next. Whoever asks for much gets high tags, and
    whoever waits is reached, because virtual time passes every tag.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._last: dict[str, float] = {}

    def tag(self, client: str, work: int) -> float:
        """The tag of a client's next picture, which takes ``work`` rows."""
        tag = max(self._now, self._last.get(client, 0.0)) + work
        self._last[client] = tag
        return tag

    def served(self, rows: int, clients: int) -> None:
        """Let virtual time pass: ``rows`` were served while ``clients`` waited or ran."""
        self._now += rows / max(clients, 1)
        self._last = {client: tag for client, tag in self._last.items() if tag > self._now}
