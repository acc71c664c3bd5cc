"""One query process, as the server sees it: started, asked once, killed.

1. It is killed and reaped whatever happens (`aclose`), also when it was never asked.
2. It gets no environment, no open descriptor but its pipes, and the module path of this process.
3. Its standard input stays open while somebody waits: that is how it learns that the server is
   gone.

It refuses to read anything out of the process but frames (`messages.py`).
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress

import trio

from ..executable import query_process_command
from .messages import Frames, QueryCut, QueryRequest, pack_request

__all__ = ["QueryProcess"]

_RECEIVE_BYTES = 256 * 1024
_NICE = 19


class QueryProcess:
    """Made by `start`."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._frames = Frames()
        self._kill = trio.Lock()

    @classmethod
    async def start(cls) -> QueryProcess:
        process = await trio.lowlevel.open_process(
            query_process_command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Python without one may decide on ASCII.
            env={"LC_ALL": "C.UTF-8"},
            cwd="/",
            # A Ctrl-C is the server's to handle.
            start_new_session=True,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    async def ask(self, request: QueryRequest) -> None:
        """Raises trio.BrokenResourceError when it has died."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(pack_request(request))

    async def receive_frame(self) -> tuple[bytes, bytes]:
        """Raises QueryCut when it ends without having said so."""
        assert self._process.stdout is not None
        while (frame := self._frames.next_nowait()) is None:
            try:
                data = await self._process.stdout.receive_some(_RECEIVE_BYTES)
            except trio.ClosedResourceError:
                data = b""  # closed by another task, which ends the query
            if not data:
                raise QueryCut("the query process ended")
            self._frames.feed(bytes(data))
        return frame

    def be_nice(self) -> None:
        """Let everything else go first, as a query does anyway once it runs."""
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICE)

    def kill(self) -> None:
        self._process.kill()

    async def aclose(self) -> None:
        """Kill and reap it; more than one may call this."""
        self._process.kill()
        with trio.CancelScope(shield=True):
            async with self._kill:
                for pipe in (self._process.stdin, self._process.stdout):
                    assert pipe is not None
                    await pipe.aclose()
                await self._process.wait()
