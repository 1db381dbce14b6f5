"""The callbacks of the denoising loop."""

from typing import Protocol

from stepwise.batching.request import Picture, Request, Summary


class Watcher(Protocol):
    """Receives callbacks on the loop's thread, so each must return quickly."""

    def stepped(self, pictures: list[Picture], seconds: float) -> None:
        """Called after every step with the pictures that shared it and its duration."""

    def ended(self, request: Request, summary: Summary) -> None:
        """Called just before a request gets its final response."""


class Nobody:
    """A watcher that does nothing."""

    def stepped(self, pictures: list[Picture], seconds: float) -> None:
        """Do nothing."""

    def ended(self, request: Request, summary: Summary) -> None:
        """Do nothing."""
