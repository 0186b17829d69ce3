"""HTTP of uvicorn with an end to connections that never finish their headers."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def timed_protocol(head_seconds: float) -> type[H11Protocol]:
    """Return uvicorn's protocol with a time limit on the headers of a request.

    uvicorn itself closes idle connections only after a first answer; one that sends its headers
    byte by byte would stay open for ever.

    Args:
        head_seconds: from the connection, or the first byte of a further request, to the end of
            its headers.
    """

    class TimedProtocol(H11Protocol):
        """Closes connections whose headers take too long."""

        _clock: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wind()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._wind()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._wind()

        def _wind(self) -> None:
            """Start the clock while headers are awaited, stop it while a request is worked on."""
            waits = self.cycle is None or self.cycle.response_complete
            if not waits:
                self._stop()
            elif self._clock is None:
                self._clock = self.loop.call_later(head_seconds, self._late)

        def _stop(self) -> None:
            if self._clock is not None:
                self._clock.cancel()
                self._clock = None

        def _late(self) -> None:
            self._clock = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return TimedProtocol
