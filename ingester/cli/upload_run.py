"""The upload itself: one reader, N senders, retries, progress kept on disk.

```
reader (thread) ──channel(0)──► N × sender (own connection) ──► progress of the file
```
Invariants:

1. At most N + 1 parts are in memory: one being built, one with each sender.
2. A part is sent again only with the same bytes and the same `Idempotency-Key`.
3. The progress file names a part only after its 2xx.
4. What is tried again: 408, 429, 5xx, and a lost connection, `retries` times a part; waits double
   from 0.5 s to 30 s with jitter, and are never shorter than `Retry-After`. Any other answer ends
   the upload. A server that was never reached ends it at once.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import ssl
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from io import BufferedReader
from pathlib import Path

import msgspec
import trio
from msgspec import Struct

from ingester.cli.common import EXIT_FAILED, EXIT_UNREACHABLE, CommandFailed
from ingester.cli.http_client import Answer, Connection, ConnectionFailed, Target
from ingester.cli.upload_parts import (
    Compression,
    DoneParts,
    Part,
    Plan,
    UploadBroken,
    open_source,
    plan_file,
    read_parts,
    state_path,
)

__all__ = ["Options", "Outcome", "Reporter", "upload_files"]

_BACKOFF_SECONDS_MIN = 0.5
_BACKOFF_SECONDS_MAX = 30.0

# A server may let bulk uploads wait for a slot without reading; longer than that is a dead peer.
_SILENCE_SECONDS_MAX = 600.0


class Options(Struct, frozen=True, kw_only=True):
    """How to upload. `again` gives new idempotency keys, so that an equal file is stored anew."""

    compression: Compression | None = None
    parallel: int = 2
    part_bytes: int = 64 * 1024 * 1024
    retries: int = 8
    resume: bool = False
    again: bool = False


class Outcome(Struct, kw_only=True):
    """What happened, of all files together; a file that was resumed counts as a whole."""

    files: int = 0
    parts: int = 0
    accepted: int = 0
    rejected: int = 0
    retries: int = 0
    bytes_sent: int = 0
    bytes_resumed: int = 0
    # False when an answer carried no counts (a server that is not `ingester`).
    counted: bool = True


class Reporter:
    """What a person is shown meanwhile; this one shows nothing."""

    def progress(self, source_bytes: int) -> None:
        """So many bytes of the files on disk are through (falls when a part is sent again)."""

    def notice(self, sentence: str) -> None:
        """Something to know, such as a wait."""


class _Run:
    """State of one upload, shared by its tasks in one thread."""

    def __init__(self, target: Target, options: Options, reporter: Reporter) -> None:
        self.target = target
        self.options = options
        self.reporter = reporter
        self.outcome = Outcome()
        self.reached = False
        self.tls = ssl.create_default_context() if target.tls else None
        self._source_bytes = 0
        self._in_flight: dict[str, int] = {}

    def moved(self, part: Part, sent_bytes: int) -> None:
        total = sum(map(len, part.body)) or 1
        self._in_flight[part.key] = part.source_bytes * sent_bytes // total
        self.reporter.progress(self._source_bytes + sum(self._in_flight.values()))

    def through(self, part: Part) -> None:
        self._in_flight.pop(part.key, None)
        self.passed(part.source_bytes)

    def passed(self, source_bytes: int) -> None:
        self._source_bytes += source_bytes
        self.reporter.progress(self._source_bytes + sum(self._in_flight.values()))


class _File(Struct, kw_only=True):
    """One file on its way, and where its progress is kept (None: nowhere)."""

    name: str
    file: BufferedReader
    plan: Plan
    done: DoneParts
    state: Path | None


async def upload_files(
    paths: Sequence[str], target: Target, options: Options, reporter: Reporter | None = None
) -> Outcome:
    """Send every file in order; raises `CommandFailed` with what to do when it cannot go on."""
    run = _Run(target, options, reporter or Reporter())
    for path in paths:
        with _opened(path, run) as file:
            await _upload_file(file, run)
            run.outcome.files += 1
            run.outcome.accepted += file.done.accepted
            run.outcome.rejected += file.done.rejected
            if file.state is not None:
                file.state.unlink(missing_ok=True)
    return run.outcome


async def _upload_file(file: _File, run: _Run) -> None:
    sender, receiver = trio.open_memory_channel[Part](0)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read, file, sender)
            async with receiver:
                for _ in range(run.options.parallel):
                    nursery.start_soon(_send, receiver.clone(), file, run)
    except BaseExceptionGroup as group:
        # Tasks fail one at a time; the first reason is the one to tell.
        failed, rest = group.split(CommandFailed)
        if failed is None or rest is not None:
            raise
        error = failed.exceptions[0]
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from group


async def _read(file: _File, parts: trio.MemorySendChannel[Part]) -> None:
    """Build parts in a thread of their own, one ahead of the senders."""
    limiter = trio.CapacityLimiter(1)
    iterator = read_parts(file.file, file.plan, file.done)
    async with parts:
        while True:
            try:
                # Abandoned on Ctrl-C: a read of standard input may never return.
                part = await trio.to_thread.run_sync(
                    _next_part, iterator, abandon_on_cancel=True, limiter=limiter
                )
            except UploadBroken as error:
                raise CommandFailed(f"{file.name}: {error}") from error
            except OSError as error:
                raise CommandFailed(f"{file.name}: {error.strerror}") from error
            if part is None:
                return
            try:
                await parts.send(part)
            except trio.BrokenResourceError:
                return  # every sender has failed; theirs is the reason to tell


def _next_part(iterator: Iterator[Part]) -> Part | None:
    return next(iterator, None)


async def _send(parts: trio.MemoryReceiveChannel[Part], file: _File, run: _Run) -> None:
    connection = Connection(run.target, tls=run.tls, silence_seconds=_SILENCE_SECONDS_MAX)
    try:
        async with parts:
            async for part in parts:
                answer = await _send_part(part, connection, file, run)
                accepted, rejected = _counts(answer, run.outcome)
                file.done.add(part, accepted, rejected)
                run.outcome.parts += 1
                run.outcome.bytes_sent += sum(map(len, part.body))
                run.through(part)
                _save(file, run)
    finally:
        await connection.aclose()


async def _send_part(part: Part, connection: Connection, file: _File, run: _Run) -> Answer:
    """The 2xx answer of one part, however many attempts it takes."""
    headers = [("Idempotency-Key", part.key), ("Content-Type", "application/json")]
    if part.encoding != "none":
        headers.append(("Content-Encoding", part.encoding))
    if run.target.token:
        headers.append(("Authorization", f"Bearer {run.target.token}"))
    attempt = 0
    while True:
        retry_after_s = 0.0
        try:
            answer = await connection.post(
                part.body, headers, sent=lambda sent_bytes: run.moved(part, sent_bytes)
            )
            run.reached = True
            if 200 <= answer.status < 300:
                return answer
            reason = _refusal(answer)
            if answer.status not in {408, 429} and answer.status < 500:
                advice = _advice(answer.status, file, run.target)
                raise CommandFailed(f"{file.name}: {reason}{advice}")
            retry_after_s = _retry_after(answer.headers.get("retry-after", ""))
            code = EXIT_FAILED
        except ConnectionFailed as error:
            reason, code = str(error), EXIT_UNREACHABLE
            if error.final or not (run.reached or error.reached):
                raise CommandFailed(reason, code) from error
            run.reached = True
        run.moved(part, 0)
        if attempt >= run.options.retries:
            raise CommandFailed(
                f"{file.name}: {reason} (tried {attempt + 1} times){_resume_advice(file)}", code
            )
        backoff_s = min(_BACKOFF_SECONDS_MAX, _BACKOFF_SECONDS_MIN * 2**attempt)
        wait_s = max(backoff_s * random.uniform(0.5, 1.0), retry_after_s * random.uniform(1.0, 1.1))
        attempt += 1
        run.outcome.retries += 1
        run.reporter.notice(f"{reason}; trying again in {wait_s:.1f} s")
        await trio.sleep(wait_s)


def _counts(answer: Answer, outcome: Outcome) -> tuple[int, int]:
    try:
        return (
            int(answer.headers["ingester-accepted"]),
            int(answer.headers["ingester-rejected"]),
        )
    except (KeyError, ValueError):
        outcome.counted = False
        return 0, 0


def _refusal(answer: Answer) -> str:
    """What the server said: a sentence, a report with the first lines, or nothing (Natero door)."""
    try:
        document = msgspec.json.decode(answer.body)
        if "error" in document:
            sentence = str(document["error"])
        else:
            first = document["errors"][0]
            sentence = f"no line was good; line {first['line']}: {first['detail']}"
    except (msgspec.DecodeError, LookupError, TypeError, UnicodeDecodeError):
        sentence = ""
    return f"the server answered {answer.status}" + (f" ({sentence})" if sentence else "")


def _advice(status: int, file: _File, target: Target) -> str:
    if status == 400 and not target.token:
        return (
            ": the key pair is unknown or revoked, or the path is wrong, or the body is damaged;"
            " compare the URL with the one `ingester source create` printed"
        )
    if status == 413:
        return ": too large; give a smaller --part-bytes" + (
            " and --compress, so that the file is split" if file.plan.as_is else ""
        )
    if 300 <= status < 400:
        return ": redirects are not followed; give the final URL"
    return ""


def _resume_advice(file: _File) -> str:
    return "; --resume goes on where this stopped" if file.state is not None else ""


def _retry_after(value: str) -> float:
    """Seconds of a `Retry-After` (RFC 9110 10.2.3: seconds or a date); 0 when there is none."""
    if value.isascii() and value.isdecimal():
        return float(value)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    return 0.0


def _save(file: _File, run: _Run) -> None:
    if file.state is None:
        return
    try:
        file.done.save(file.state)
    except OSError as error:
        run.reporter.notice(
            f"progress cannot be kept in {file.state} ({error.strerror}): --resume will not work"
        )
        file.state = None


@contextlib.contextmanager
def _opened(path: str, run: _Run) -> Iterator[_File]:
    options = run.options
    try:
        handle = open_source(path)
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}") from error
    with contextlib.ExitStack() as stack:
        if path != "-":
            stack.enter_context(handle)
        salt = secrets.token_hex(8) if options.again or path == "-" else ""
        plan = plan_file(
            handle,
            compression=options.compression,
            part_bytes=options.part_bytes,
            salt=salt,
        )
        if not plan.identity and not plan.salt:
            plan.salt = secrets.token_hex(8)
        state = state_path(Path(path)) if plan.identity else None
        done = DoneParts(plan=plan)
        if state is not None and (earlier := _earlier(state, path, plan, run)) is not None:
            done = earlier
            run.outcome.bytes_resumed += done.through
        yield _File(name=path, file=handle, plan=done.plan, done=done, state=state)


def _earlier(state: Path, path: str, plan: Plan, run: _Run) -> DoneParts | None:
    """Progress of an earlier run to go on from, when that is asked for and possible."""
    if not run.options.resume:
        if state.exists():
            run.reporter.notice(
                f"{path}: an earlier upload stopped halfway; this one starts over (parts already"
                " stored are not stored twice within the server's 24 h), --resume would go on"
            )
        return None
    try:
        earlier = DoneParts.load(state)
    except (OSError, UploadBroken) as error:
        raise CommandFailed(str(error)) from error
    if earlier is None:
        return None
    if earlier.plan.identity != plan.identity:
        raise CommandFailed(
            f"{path} has changed since the upload that {state.name} belongs to; remove that file"
            " to upload it from the start"
        )
    return earlier
