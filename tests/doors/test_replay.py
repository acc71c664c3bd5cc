"""Replay on a real folder: every line at most once, whatever ends the process and when."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec import structs

from ingester import startup
from ingester.config import Config, IntakeConfig, StoreConfig
from ingester.doors import replay as replay_module
from ingester.doors.replay import Replayer
from ingester.errors import JournalFailed, Overloaded, StoreBusy
from ingester.journal.writer import JournalWriter
from ingester.messages import ReplayOutcome
from ingester.offline_replay import with_stopped_folder
from ingester.protocol.requests import entry_to_bytes
from ingester.reject_desk import StoreDesk
from ingester.store.control import ControlStore
from ingester.store.reader import check_parts
from ingester.store.reject_rows import RejectFilter, StoredReject
from tests.actors.requests import body_of, small_request
from tests.store.stores import rows

LONG_AGO = 1_700_000_000_000_000

Work = Callable[[StoreDesk, ControlStore], Any]


def late(name: str, **more: object) -> bytes:
    """An event without its session: passes when its source is lenient."""
    event = {"accountId": name, "userId": "u", "createdAt": 1_700_000_000_000, "action": "a"}
    return json.dumps({**event, **more}).encode()


class Folder:
    """A stopped folder with rejects of a source that has become lenient."""

    def __init__(self, path: Path, lines: Sequence[bytes], **intake: Any) -> None:
        self.config = Config(
            store=StoreConfig(data_dir=str(path / "data")), intake=IntakeConfig(**intake)
        )
        opened = startup.open_all(self.config)
        opened.control.create_source("test", lenient_session=True)
        number = opened.numbers.next()
        entry = structs.replace(
            small_request(number, body_of(lines)).entry, received_at_us=LONG_AGO
        )
        opened.writer.append([entry_to_bytes(entry)])
        startup.close(opened)
        startup.close(startup.open_all(self.config))  # loads it

    def work(self, work: Work) -> Any:
        return with_stopped_folder(self.config, work)

    def replay(
        self, edits: dict[int, bytes] | None = None, *, dry_run: bool = False
    ) -> dict[int, ReplayOutcome]:
        """Of all rejects, by line number."""
        return dict(self.work(lambda desk, _: replay_all(desk, edits, dry_run=dry_run)))

    def accounts(self) -> list[str]:
        opened = startup.open_all(self.config)
        try:
            assert check_parts(opened.store) == []
            found = rows(opened.store, "SELECT account_id FROM events ORDER BY account_id")
            return [account for (account,) in found]
        finally:
            startup.close(opened)


def everything(desk: StoreDesk) -> list[StoredReject]:
    return desk.page(RejectFilter(), limit=10_000, after=None, oldest_first=True).rejects


def replay_all(
    desk: StoreDesk, edits: dict[int, bytes] | None = None, *, dry_run: bool = False
) -> dict[int, ReplayOutcome]:
    rejects = everything(desk)
    texts = {one.id: edits[one.line_number] for one in rejects if one.line_number in (edits or {})}
    outcomes = desk.replay(rejects, texts, dry_run=dry_run, actor="local")
    assert [outcome.id for outcome in outcomes] == [reject.id for reject in rejects]
    return {one.line_number: told for one, told in zip(rejects, outcomes, strict=True)}


def results(outcomes: dict[int, ReplayOutcome]) -> list[str]:
    return [outcome.outcome for outcome in outcomes.values()]


def test_a_crash_before_the_mark_is_found_out_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path, [late("a"), late("b")])

    def fail(*_: object) -> None:
        raise StoreBusy("the process ends here")

    with monkeypatch.context() as patched:
        patched.setattr(ControlStore, "settle_replays", fail)
        assert results(folder.replay()) == ["replayed"] * 2
    assert results(folder.replay()) == ["already_replayed"] * 2
    assert folder.accounts() == ["a", "b"]


def test_a_crash_before_the_journal_gives_the_lines_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path, [late("a"), late("b")])

    async def die(*_: object) -> None:
        raise RuntimeError("the process ends here")

    def twice(desk: StoreDesk, control: ControlStore) -> list[str]:
        with pytest.raises(RuntimeError):
            replay_all(desk)
        assert len(control.open_replays()) == 1
        return results(replay_all(desk))

    with monkeypatch.context() as patched:
        patched.setattr(Replayer, "_store_lines", die)
        # Whether they are stored is not known in this process.
        assert folder.work(twice) == ["under_way"] * 2
    assert folder.accounts() == []
    assert results(folder.replay()) == ["replayed"] * 2
    assert folder.accounts() == ["a", "b"]


def test_a_journal_that_cannot_be_written_leaves_the_lines_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path, [late("a")])

    def twice(desk: StoreDesk, control: ControlStore) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(JournalWriter, "append", _journal_fails)
            (outcome,) = replay_all(desk).values()
        assert outcome.outcome == "failed"
        assert outcome.detail is not None
        assert "journal" in outcome.detail
        assert control.open_replays() == []
        assert results(replay_all(desk)) == ["replayed"]

    folder.work(twice)
    assert folder.accounts() == ["a"]


def _journal_fails(*_: object) -> None:
    raise JournalFailed("no")


def test_a_mark_that_could_not_be_written_is_written_by_the_next_who_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path, [late("a")])

    def busy(*_: object) -> None:
        raise StoreBusy("no space")

    def work(desk: StoreDesk, control: ControlStore) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(ControlStore, "settle_replays", busy)
            assert results(replay_all(desk)) == ["replayed"]
            with pytest.raises(StoreBusy):
                everything(desk)
        (reject,) = everything(desk)
        assert control.replay_marks([reject.key])[reject.key].state == "replayed"

    folder.work(work)
    assert folder.accounts() == ["a"]


def test_replays_at_once_store_each_line_once(tmp_path: Path) -> None:
    folder = Folder(tmp_path, [late(f"{n:03}") for n in range(300)])

    def work(desk: StoreDesk, control: ControlStore) -> list[str]:
        rejects = everything(desk)
        found: list[str] = []

        async def several() -> None:
            async def one() -> None:
                assert desk._replayer is not None
                told = await desk._replayer.replay(rejects, {}, dry_run=False, actor="local")
                found.extend(outcome.outcome for outcome in told)

            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(one)

        trio.from_thread.run(several)
        return found

    found = folder.work(work)
    assert found.count("replayed") == 300
    assert set(found) <= {"replayed", "already_replayed", "under_way"}
    assert folder.accounts() == [f"{n:03}" for n in range(300)]


def test_lines_are_cut_into_requests_of_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "REQUEST_BYTES_MAX", 1000)
    monkeypatch.setattr(replay_module, "REQUEST_LINES_MAX", 7)
    lines = [late(f"{n:02}") for n in range(20)] + [late("wide", pad="x" * 3000)]
    folder = Folder(tmp_path, lines)
    outcomes = folder.replay()
    assert results(outcomes) == ["replayed"] * 21
    by_request: dict[str | None, list[int]] = {}
    for number, outcome in outcomes.items():
        by_request.setdefault(outcome.request_id, []).append(number)
    assert [len(numbers) for numbers in by_request.values()] == [7, 7, 6, 1]
    assert len(folder.accounts()) == 21


def test_what_is_refused_again_is_told_and_makes_no_second_reject(tmp_path: Path) -> None:
    folder = Folder(tmp_path, [late("a"), b"{", late("", userId=3), b'{"accountId":"\xff"}'])

    def work(desk: StoreDesk, control: ControlStore) -> None:
        for _ in range(2):
            outcomes = replay_all(desk)
            assert [outcomes[n].outcome for n in (2, 3, 4)] == ["refused"] * 3
            assert (outcomes[3].reason, outcomes[3].field) == ("missing_field", "accountId")
        rejects = everything(desk)
        assert len(rejects) == 4
        marks = control.replay_marks([reject.key for reject in rejects])
        states = [(marks[r.key].state, marks[r.key].refusal) for r in rejects]
        assert states == [
            ("replayed", None),
            ("refused", "invalid_json"),
            ("refused", "missing_field"),
            ("refused", "invalid_utf8"),
        ]
        assert results(replay_all(desk, {2: late("b")})) == [
            *("already_replayed", "replayed", "refused", "refused"),
        ]

    folder.work(work)
    assert folder.accounts() == ["a", "b"]


@pytest.mark.parametrize(
    ("edit", "outcome"),
    [
        (b"", "refused"),
        (b" \r\n\n", "refused"),
        (late("x") + b"\n{", "refused"),
        (b"\xef\xbb\xbf" + late("x") + b"\r\n", "replayed"),
        (late("x") + b"\r\n\r\n" + late("y"), "replayed"),
        (b"\x1f\x8b\x08", "refused"),
        (late("x", pad="p" * 1_048_400), "replayed"),
        (late("x", pad="p" * 1_048_600), "impossible"),
    ],
)
def test_an_edit_is_taken_whole_or_not_at_all(tmp_path: Path, edit: bytes, outcome: str) -> None:
    folder = Folder(tmp_path, [b"{"])
    assert results(folder.replay({1: edit}, dry_run=True)) == [
        "accepted" if outcome == "replayed" else outcome
    ]
    assert results(folder.replay({1: edit})) == [outcome]
    stored = folder.accounts()
    assert stored == ([] if outcome != "replayed" else ["x", "y"] if b'"y"' in edit else ["x"])


def test_compressed_bodies_without_a_header_are_not_whole(tmp_path: Path) -> None:
    folder = Folder(tmp_path, [b"\x1f\x8b\x08\x00more"])
    (outcome,) = folder.replay().values()
    assert outcome.outcome == "impossible"
    assert outcome.detail is not None
    assert "Content-Encoding" in outcome.detail
    assert results(folder.replay({1: late("a")})) == ["replayed"]


def test_a_deleted_source_has_default_settings(tmp_path: Path) -> None:
    folder = Folder(tmp_path, [late("a"), b"{"])
    folder.work(lambda _, control: control.delete_source("test"))
    assert results(folder.replay({2: late("b", sessionId="s")})) == ["refused", "replayed"]
    assert folder.accounts() == ["b"]


def test_a_full_journal_refuses_before_anything_is_claimed(tmp_path: Path) -> None:
    folder = Folder(tmp_path, [late("a")])

    def work(desk: StoreDesk, control: ControlStore) -> None:
        assert desk._replayer is not None
        desk._replayer._admission.is_draining = True
        assert results(replay_all(desk, dry_run=True)) == ["accepted"]
        with pytest.raises(Overloaded):
            replay_all(desk)
        assert control.open_replays() == []

    folder.work(work)


def test_a_server_that_runs_keeps_its_folder(tmp_path: Path) -> None:
    folder = Folder(tmp_path, [late("a")])
    opened = startup.open_all(folder.config)
    try:
        with pytest.raises(StoreBusy):
            folder.replay()
    finally:
        startup.close(opened)


def test_who_asks_may_hold_every_thread_there_is(tmp_path: Path) -> None:
    """Each request of the console waits in one of the default threads."""
    folder = Folder(tmp_path, [late(f"{n:02}") for n in range(40)])

    def work(desk: StoreDesk, control: ControlStore) -> list[str]:
        rejects = everything(desk)
        found: list[str] = []

        def ask(reject: StoredReject) -> None:
            (outcome,) = desk.replay([reject], {}, dry_run=False, actor="local")
            found.append(outcome.outcome)

        async def all_at_once() -> None:
            tokens = trio.CapacityLimiter(len(rejects))
            default = trio.to_thread.current_default_thread_limiter()
            default.total_tokens = default.borrowed_tokens  # nobody else gets one
            async with trio.open_nursery() as nursery:
                for reject in rejects:
                    nursery.start_soon(_ask, ask, reject, tokens)

        trio.from_thread.run(all_at_once)
        return found

    assert folder.work(work) == ["replayed"] * 40


async def _ask(
    ask: Callable[[StoredReject], None], reject: StoredReject, tokens: trio.CapacityLimiter
) -> None:
    await trio.to_thread.run_sync(ask, reject, limiter=tokens)
