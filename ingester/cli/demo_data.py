"""What the demo sends, and how: the bundled events through the Natero door.

980 of the 1,000 events go as one gzip file (the bulk lane), 20 one by one as an application would
send them (the small lane), and wrong lines go together with the last good one, to show that a
request with bad lines is taken and the bad ones are kept aside.
"""

from __future__ import annotations

import gzip
from pathlib import Path

from msgspec import Struct

from ingester.cli.common import CommandFailed
from ingester.cli.http_client import Answer, Connection, ConnectionFailed, parse_target
from ingester.cli.upload_run import Options, upload_files
from ingester.samples import SAMPLE_NAME, sample_bytes

__all__ = ["DemoData", "Sent", "make_demo_data", "send_demo_data"]

_SINGLE_COUNT = 20
_SILENCE_SECONDS_MAX = 60.0

# One of each kind that happens in practice: a cut line, no user, a text where a time belongs, an
# array (this API takes none).
_WRONG_LINES = (
    b'{"accountId":"acme","userId":"ada","createdAt":14200',
    b'{"accountId":"acme","createdAt":1420074000000,"action":"login","sessionId":"s1"}',
    b'{"accountId":"acme","userId":"ada","createdAt":"today","action":"login","sessionId":"s1"}',
    b'[{"accountId":"acme","userId":"ada"}]',
)


class DemoData(Struct, frozen=True, kw_only=True):
    """Lines by the way they are sent; `path` is the gzip file with the bulk ones."""

    path: Path
    bulk: tuple[bytes, ...]
    single: tuple[bytes, ...]
    wrong: tuple[bytes, ...]

    @property
    def line_count(self) -> int:
        """Good lines."""
        return len(self.bulk) + len(self.single)


class Sent(Struct, kw_only=True):
    """What the server said: lines by its own counts, and the test door's status."""

    accepted: int = 0
    rejected: int = 0
    test_status: int | None = None


def make_demo_data(folder: Path) -> DemoData:
    lines = gzip.decompress(sample_bytes()).splitlines()
    bulk, single = lines[:-_SINGLE_COUNT], lines[-_SINGLE_COUNT:]
    path = folder / SAMPLE_NAME
    path.write_bytes(gzip.compress(b"\n".join(bulk) + b"\n", mtime=0))
    return DemoData(path=path, bulk=tuple(bulk), single=tuple(single), wrong=_WRONG_LINES)


async def send_demo_data(data: DemoData, url: str, test: str | None) -> Sent:
    """Send everything; any answer but 200 ends the demo."""
    target = parse_target(url)
    assert target is not None
    sent = Sent()
    # A demo that is run twice stores its events twice, under `again`'s new idempotency keys.
    outcome = await upload_files([str(data.path)], target, Options(parallel=1, again=True))
    sent.accepted += outcome.accepted
    sent.rejected += outcome.rejected
    connection = Connection(target, silence_seconds=_SILENCE_SECONDS_MAX)
    try:
        for line in data.single[:-1]:
            _add(sent, await _post(connection, line))
        mixed = b"\n".join([*data.wrong[:2], data.single[-1], *data.wrong[2:]])
        _add(sent, await _post(connection, mixed))
        await _post(connection, b"", path="/v1/ping")
    finally:
        await connection.aclose()
    if test is not None:
        test_target = parse_target(test + target.path)
        assert test_target is not None
        connection = Connection(test_target, silence_seconds=_SILENCE_SECONDS_MAX)
        try:
            sent.test_status = (await _post(connection, data.single[0])).status
        finally:
            await connection.aclose()
    return sent


async def _post(connection: Connection, body: bytes, *, path: str = "") -> Answer:
    headers = [("Content-Type", "application/json")]
    try:
        answer = await connection.post((body,) if body else (), headers, path=path)
    except ConnectionFailed as error:
        raise CommandFailed(f"the demo's server: {error}") from error
    if answer.status != 200:
        raise CommandFailed(f"the demo's server answered {answer.status} to {len(body)} bytes")
    return answer


def _add(sent: Sent, answer: Answer) -> None:
    sent.accepted += int(answer.headers.get("ingester-accepted", "0"))
    sent.rejected += int(answer.headers.get("ingester-rejected", "0"))
