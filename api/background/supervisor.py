"""The supervisor of several workers."""

from __future__ import annotations

from contextlib import suppress

from uvicorn.supervisors import Multiprocess


class Supervisor(Multiprocess):
    """Starts another worker at once where one dies, also where it died with a health check unanswered."""

    def keep_subprocess_alive(self) -> None:
        for process in self.processes:
            # A worker has its end of the pipe since it was started. While we hold a copy of it, the pipe of a dead
            # worker does not end, and its health check is waited for until it times out.
            process.child_conn.close()
        with suppress(EOFError):  # some versions of uvicorn let it pass; the dead worker is found at the next look
            super().keep_subprocess_alive()
