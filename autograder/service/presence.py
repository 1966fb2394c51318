"""Whether the jobs' database is there: an outage is said once, requests wait for its end, and nothing asks in vain meanwhile."""

import asyncio
import contextlib
import logging

from autograder.service.database import AGAIN_SECONDS, Unavailable
from autograder.service.store import Store

WAIT_SECONDS = 10.0                     # for which a request waits; a server that is restarted needs two or three
log = logging.getLogger("autograder")


class Presence:
    """Belongs to the event loop; only the question itself is asked in a thread, since a host that is gone lets it wait."""

    def __init__(self, store: Store) -> None:
        self.store, self.here = store, asyncio.Event()
        self.here.set()

    def lost(self, why: Unavailable) -> None:
        if self.here.is_set():
            self.here.clear()
            log.warning("%s. Nothing is lost: what runs goes on, what was submitted waits until it answers", why)

    async def watch(self) -> None:
        """Ask every second, as long as the service runs."""
        while True:
            await asyncio.sleep(AGAIN_SECONDS)
            try:
                await asyncio.to_thread(self.store.ask, "SELECT 1")
            except Unavailable as why:
                self.lost(why)
            else:
                if not self.here.is_set():
                    log.info("the jobs' database answers again")
                    self.here.set()

    async def comes(self) -> bool:
        """Whether it is there, or is within a while."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.here.wait(), WAIT_SECONDS)
        return self.here.is_set()
