"""Those who are told what the loop does."""

from typing import Protocol

from stepwise.batching.request import Picture, Request, Summary


class Watcher(Protocol):
    """Told by the loop's thread, which waits for the return."""

    def stepped(self, pictures: list[Picture], seconds: float) -> None:
        """After every step: the pictures of one denoiser call, and how long it took."""

    def ended(self, request: Request, summary: Summary) -> None:
        """When a request is about to get its last answer."""


class Nobody:
    """A watcher who does nothing."""

    def stepped(self, pictures: list[Picture], seconds: float) -> None:
        """Nothing."""

    def ended(self, request: Request, summary: Summary) -> None:
        """Nothing."""
