"""How fast a run goes, and how it is asked to stop."""

import contextlib
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

CHUNK = 50  # targets that are listed together; the smallest batch
FIRST = 1000 // CHUNK
LARGEST = 20_000 // CHUNK
TARGET_SECONDS = 0.5
GENTLE_SECONDS = 0.03
REST = 3.0  # times as long as the batch before it took


@dataclass
class Pace:
    """How large the next batch is, and how long to rest before it.

    A batch holds locks on its tracks, and a processor: both keep workers waiting. So by default
    batches are short and each is followed by a rest as long as several of it, which is the more
    rest the busier the server is. A given *pause* means that nobody is in the way.
    """

    pause: float | None
    chunks: int = field(default_factory=lambda: FIRST)
    interrupted: bool = False

    def took(self, seconds: float, rows: int | None) -> None:
        """Adapt to a batch that took so long, and rest."""
        target = GENTLE_SECONDS if self.pause is None else TARGET_SECONDS
        scale = min(2.0, max(0.5, target / max(seconds, 1e-3)))
        self.chunks = min(LARGEST, max(1, round(self.chunks * scale)))
        if rows == 0:  # only locked ones: give whoever has them time
            self.rest(0.3)
        elif rows:
            self.rest(self.pause if self.pause is not None else REST * seconds)

    def failed(self, attempt: int) -> None:
        """Halve the batch that failed, and rest the longer the more often it did."""
        self.chunks = max(1, self.chunks // 2)
        self.rest(min(8.0, 0.1 * 2**attempt) * random.uniform(0.5, 1.5))

    def rest(self, seconds: float) -> None:
        """Sleep, but not past an interrupt. (An Event's wait could deadlock with the signal
        handler that sets it: both run in this thread.)"""
        until = time.monotonic() + seconds
        while not self.interrupted and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))

    def interrupt(self, *_: object) -> None:
        """Ask the run to end after the batch in hand; asked again, end it at once."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let Ctrl-C, a notebook's stop button and SIGTERM interrupt the run. What a second one
        cuts off is undone by the server."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self.interrupt) for number in signals]
        try:
            yield
        finally:
            for number, handler in zip(signals, before, strict=True):
                signal.signal(number, handler)
