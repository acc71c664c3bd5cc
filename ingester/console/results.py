"""Results of queries as responses: a small one whole, a large one piece by piece.

A small result has a Content-Length. What comes in more than one piece is streamed, and when it
fails in the middle the connection is closed without the end of the chunked body, so that nobody
takes a part for the whole. The answer is closed, and its process with it, when the client leaves.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType

from quart import Response
from quart.wrappers.response import ResponseBody

from ingester.console.services import QueryStream
from ingester.sandbox.messages import QueryCut, QueryRefused

__all__ = ["result_response"]


async def result_response(stream: QueryStream) -> Response:
    """Takes over the stream."""
    pieces: list[bytes] = []
    is_whole = False
    try:
        while len(pieces) < 2 and not is_whole:
            piece = await stream.receive()
            is_whole = not piece
            pieces.append(piece)
    except QueryCut as error:
        await stream.aclose()
        raise QueryRefused(str(error)) from error
    except BaseException:
        await stream.aclose()
        raise
    if is_whole:
        await stream.aclose()
        return Response(b"".join(pieces), content_type=stream.content_type)
    response = Response(b"", content_type=stream.content_type)
    response.response = _ResultBody(stream, pieces)
    # Its length is not known.
    response.headers.pop("Content-Length", None)
    response.timeout = None
    return response


class _ResultBody(ResponseBody):
    """Quart sends what this iterates over, and leaves it when the client does."""

    def __init__(self, stream: QueryStream, pieces: list[bytes]) -> None:
        self._stream = stream
        self._pieces = pieces

    async def __aenter__(self) -> AsyncIterator[bytes]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = self._pieces.pop(0) if self._pieces else await self._stream.receive()
        if not piece:
            raise StopAsyncIteration
        return piece
