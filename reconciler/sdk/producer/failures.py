"""What went wrong behind the back of callers that don't wait: kept until somebody can be told."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import CancelledError, Future

from reconciler.sdk.delivery import Fate
from reconciler.sdk.errors import DeliveryError
from reconciler.sdk.spool import Message

logger = logging.getLogger("reconciler.sdk")


class Failures:
    """Delivery errors that nobody has seen yet. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unseen: list[DeliveryError] = []

    def watch(self, future: Future[Fate]) -> None:
        """Keeps the error of an event that nobody waits for."""
        future.add_done_callback(self._note)

    def keep(self, error: DeliveryError) -> None:
        """Keeps an error for whoever calls next."""
        logger.error("an event was not delivered: %s", error)
        with self._lock:
            self._unseen.append(error)

    def raise_unseen(self) -> None:
        """Raises one DeliveryError for all that came up since the last call, with the undelivered events."""
        with self._lock:
            unseen, self._unseen = self._unseen, []
        if unseen:
            undelivered: tuple[Message, ...] = sum((error.undelivered for error in unseen), ())
            raise DeliveryError(
                f"{len(unseen)} events sent earlier were not delivered; the first: {unseen[0]}", undelivered
            ) from unseen[0]

    def _note(self, future: Future[Fate]) -> None:
        try:
            error = future.exception()
        except CancelledError:
            return
        if isinstance(error, DeliveryError):
            self.keep(error)
