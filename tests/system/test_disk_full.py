"""A full disk under the journal, under the open part, under everything.

A small tmpfs is mounted where the folder in question lies, and filled by a stranger's file or by
the load itself. With a reserve of some MiB the server refuses before the disk is full; with a
reserve of one byte it meets real ENOSPC. In each case: 503 with Retry-After, no end of the
process, resumption by itself, nothing acknowledged lost, nothing refused stored, also not by the
replay after a kill.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.system.client import Answer, NoAnswer, head_bytes
from tests.system.kill_run import IngesterSubject
from tests.system.ledger import Ledger, Sent, reconcile
from tests.system.load import build_request, post_request
from tests.system.server import Server

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

_MIB = 1024 * 1024
_FULL_POSTS_MAX = 150
_FULL_SECONDS_MAX = 15.0
_RESUME_SECONDS_MAX = 20.0

# Small enough that a disk of some tens of MiB is more than a handful of segments.
_ENVIRONMENT = {
    "INGESTER_JOURNAL_SEGMENT_BYTES": str(2 * _MIB),
    "INGESTER_JOURNAL_BACKLOG_BYTES_MAX": str(12 * _MIB),
    "INGESTER_JOURNAL_RETENTION_BYTES_MAX": str(4 * _MIB),
}

Mount = Callable[[Path, int], None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """`mount(folder, bytes)` puts a new tmpfs there; all are unmounted at the end."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mounted: list[Path] = []

    def put(folder: Path, size_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        result = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)],
            capture_output=True,
            check=False,
        )
        if result.returncode != 0:
            pytest.skip(f"cannot mount a tmpfs: {result.stderr.decode().strip()}")
        mounted.append(folder)

    try:
        yield put
    finally:
        for folder in reversed(mounted):
            subprocess.run(["umount", "-l", str(folder)], check=False)


@dataclass
class Trial:
    """One server on a small disk, and the book of everything sent to it."""

    subject: IngesterSubject
    ledger: Ledger
    disk: Path
    rng: random.Random = field(default_factory=lambda: random.Random(4))
    serial: int = 0
    book: list[Sent] = field(default_factory=list)

    @property
    def server(self) -> Server:
        return self.subject.server

    @property
    def stranger(self) -> Path:
        return self.disk / "stranger.bin"

    def fill(self, leave_bytes: int = 0) -> None:
        """A stranger takes the space, to the last block when nothing is to be left."""
        descriptor = os.open(self.stranger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for block in (256 * 1024, 4096, 512):
                with contextlib.suppress(OSError):
                    while _free_bytes(self.disk) >= leave_bytes + block or not leave_bytes:
                        os.write(descriptor, b"\0" * block)
        finally:
            os.close(descriptor)

    def give_back(self) -> None:
        self.stranger.unlink()

    def post(self, *, row_count: int = 100, padding_bytes: int = 2000) -> Sent:
        """One body of some 200 kB; what came of it is in the book."""
        request = self.build("small", row_count, padding_bytes)
        with self.server.connect() as connection, contextlib.suppress(NoAnswer):
            answer = post_request(connection, self.subject.path, request)
            self.settle_answer(request, answer)
        return request

    def build(self, kind: str, row_count: int, padding_bytes: int) -> Sent:
        self.serial += 1
        request = build_request(
            f"d0-{kind}-{self.serial}",
            kind,
            self.rng,
            row_count=row_count,
            reject_count=1,
            padding_bytes=padding_bytes,
        )
        self.ledger.sending(request)
        self.book.append(request)
        return request

    def settle_answer(self, request: Sent, answer: Answer) -> None:
        self.ledger.answered(request, answer)
        request.body = b""
        assert answer.status in {200, 503}, answer
        assert answer.body == b""
        if answer.status == 503:
            assert int(answer.headers["retry-after"]) >= 1
        else:
            assert answer.counts == (request.row_count, request.reject_count)

    def post_until_refused(self) -> bool:
        """Load on a full disk; whether a 503 came. The process must live on."""
        deadline = time.monotonic() + _FULL_SECONDS_MAX
        for _ in range(_FULL_POSTS_MAX):
            if time.monotonic() > deadline:
                break
            if self.post().outcome == "refused":
                for _ in range(5):  # and it stays refused, without harm
                    self.post()
                return True
        return False

    def post_until_taken(self) -> float:
        began = time.monotonic()
        while self.post(row_count=10).outcome != "acknowledged":
            assert time.monotonic() - began < _RESUME_SECONDS_MAX, "does not resume by itself"
            time.sleep(0.2)
        return time.monotonic() - began

    def check(self) -> None:
        """Compare the whole book with the store."""
        assert self.server.process is not None
        assert self.server.process.poll() is None, self.server.log_tail()
        self.subject.settle()
        verdict = reconcile(self.book, self.subject.stored("d0"))
        problems = verdict.problems + self.subject.request_problems(self.book)
        assert problems == [], "\n".join(problems[:20])
        assert verdict.acknowledged_rows > 0


@contextlib.contextmanager
def _trial(folder: Path, disk: Path, reserve_bytes: int) -> Iterator[Trial]:
    environment = {
        **_ENVIRONMENT,
        "INGESTER_STORE_DISK_RESERVE_BYTES": str(reserve_bytes),
    }
    server = Server(folder / "data", folder / "server.log", environment)
    with closing(Ledger(folder / "ledger.jsonl")) as ledger:
        try:
            server.start()
            keys = server.create_source("disk")
            yield Trial(IngesterSubject(server, keys), ledger, disk)
        finally:
            server.kill()


def _free_bytes(folder: Path) -> int:
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize


def _cases(*short: str) -> list[Any]:
    """Every place with both reserves; those not named in `short` run with `--long` only."""
    cases: list[Any] = []
    for place in ("journal", "open", "everything"):
        for reserve, word in ((8 * _MIB, "reserve"), (1, "enospc")):
            name = f"{place}-{word}"
            marks = () if name in short else pytest.mark.long
            cases.append(pytest.param(place, reserve, id=name, marks=marks))
    return cases


def _disk_of(folder: Path, place: str) -> Path:
    return folder / "data" if place == "everything" else folder / "data" / place


@pytest.mark.parametrize(
    ("place", "reserve_bytes"), _cases("journal-enospc", "open-enospc", "everything-reserve")
)
def test_a_stranger_fills_the_disk(
    tmp_path: Path, mount: Mount, place: str, reserve_bytes: int
) -> None:
    disk = _disk_of(tmp_path, place)
    mount(disk, 64 * _MIB)
    with _trial(tmp_path, disk, reserve_bytes) as trial:
        for _ in range(5):
            assert trial.post().outcome == "acknowledged"
        trial.fill(leave_bytes=4 * _MIB if reserve_bytes > 1 else 0)
        assert trial.post_until_refused(), "a full disk was never refused"
        trial.give_back()
        took = trial.post_until_taken()
        print(f"{place}: taken again after {took:.1f} s")
        trial.check()

        # Once more, and this time the process dies while the disk is full.
        trial.fill()
        assert trial.post_until_refused(), "a full disk was never refused"
        trial.server.kill()
        trial.give_back()
        trial.server.start()
        trial.check()
        trial.post_until_taken()
        trial.check()
        assert trial.server.stop() == 0


@pytest.mark.parametrize(
    ("place", "reserve_bytes"), _cases("journal-enospc", "open-reserve", "everything-enospc")
)
def test_the_disk_fills_in_the_middle_of_a_bulk_upload(
    tmp_path: Path, mount: Mount, place: str, reserve_bytes: int
) -> None:
    disk = _disk_of(tmp_path, place)
    mount(disk, 96 * _MIB)
    with _trial(tmp_path, disk, reserve_bytes) as trial:
        for _ in range(3):
            assert trial.post().outcome == "acknowledged"
        request = trial.build("bulk", 24_000, 1_000)  # 26 MiB, hardly compressible
        body = request.body
        head = head_bytes("POST", trial.subject.path, {"Content-Length": str(len(body))})
        half = len(body) // 2
        answer: Answer | None = None
        with trial.server.connect() as connection:
            with contextlib.suppress(NoAnswer):
                connection.send_raw(head + body[:half])
                time.sleep(0.3)
                trial.fill()
                for start in range(half, len(body), _MIB):
                    connection.send_raw(body[start : start + _MIB])
            with contextlib.suppress(NoAnswer):
                answer = connection.read_answer()
                trial.settle_answer(request, answer)
        if place != "journal" and reserve_bytes > 1:
            # Seen by the reserve before any commit: a plain refusal.
            assert answer is not None
            assert answer.status == 503
        print(f"{place}: bulk {request.outcome} {request.status}")
        trial.give_back()
        trial.post_until_taken()
        trial.check()
        again = trial.build("again", 24_000, 1_000)
        with trial.server.connect() as connection:
            trial.settle_answer(again, post_request(connection, trial.subject.path, again))
        assert again.outcome == "acknowledged"
        trial.server.kill()
        trial.server.start()
        trial.check()


def test_load_fills_the_open_part_until_the_disk_grows(tmp_path: Path, mount: Mount) -> None:
    disk = _disk_of(tmp_path, "open")
    mount(disk, 48 * _MIB)
    with _trial(tmp_path, disk, 8 * _MIB) as trial:
        refused = False
        for _ in range(30):
            request = trial.build("bulk", 4_000, 1_000)
            with trial.server.connect() as connection:
                trial.settle_answer(request, post_request(connection, trial.subject.path, request))
            if request.outcome == "refused":
                refused = True
                break
        assert refused, "130 MiB went into a disk of 48 MiB"
        subprocess.run(["mount", "-o", f"remount,size={256 * _MIB}", str(disk)], check=True)
        trial.post_until_taken()
        trial.check()
        trial.server.kill()
        trial.server.start()
        trial.check()


def test_more_load_than_the_journal_disk_holds_goes_through(tmp_path: Path, mount: Mount) -> None:
    """Applied segments make room: a small journal disk slows the load, it does not end it."""
    disk = _disk_of(tmp_path, "journal")
    mount(disk, 40 * _MIB)
    with _trial(tmp_path, disk, 4 * _MIB) as trial:
        taken = 0
        deadline = time.monotonic() + 60.0
        while taken < 100:
            assert time.monotonic() < deadline, f"stuck after {taken} bodies of 0.9 MiB"
            if trial.post(row_count=400).outcome == "acknowledged":
                taken += 1
            else:
                time.sleep(0.1)
        trial.check()


def test_a_full_disk_is_errno_28_for_the_stranger_too(tmp_path: Path, mount: Mount) -> None:
    """The method itself: after `fill` not a block is left."""
    disk = tmp_path / "disk"
    mount(disk, 4 * _MIB)
    trial = Trial.__new__(Trial)
    trial.disk = disk
    trial.fill()
    with pytest.raises(OSError, match="space") as caught:
        (disk / "x").write_bytes(b"x" * 4096)
    assert caught.value.errno == errno.ENOSPC
    trial.give_back()
    assert _free_bytes(disk) >= 3 * _MIB
