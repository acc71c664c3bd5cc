"""The load clients against a stand-in server: counts, answers, windows."""

from __future__ import annotations

from array import array

import pytest

from bench import wire
from bench.client import bulk_client, small_client, upload
from bench.client_bulk import BulkDone
from bench.client_small import percentiles
from bench.corpus import ENCODINGS, Encoding, synthetic_corpus
from bench.log_corpus import synthetic_log_corpus
from bench.server import Door, ServerUnavailable, run_server


def test_answer_length_needs_the_whole_head_and_a_length() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 12\r\n\r\n"
    assert wire.answer_length(head[:-1]) == 0
    assert wire.answer_length(head) == len(head) + 12
    with pytest.raises(ValueError, match="Content-Length"):
        wire.answer_length(b"HTTP/1.1 200 OK\r\nX-Content-Length: 3\r\n\r\n")


def test_percentiles_are_in_milliseconds() -> None:
    assert percentiles(array("q")) == (0.0, 0.0, 0.0, 0.0)
    p50, _, _, worst = percentiles(array("q", [1_000_000, 2_000_000, 3_000_000]))
    assert (p50, worst) == (2.0, 3.0)


@pytest.mark.usefixtures("fake_program")
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_upload_reads_the_counts_of_the_answer(encoding: Encoding) -> None:
    corpus = synthetic_corpus(300)
    with run_server() as server:
        done = upload(server, corpus.path(encoding), encoding)
        assert (done.status, done.accepted, done.rejected) == (200, 300, 0)
        assert server.wait_count(300) == 300
    assert not server.data_dir.exists()


@pytest.mark.usefixtures("fake_program")
def test_stream_sends_whole_copies_as_one_chunked_body() -> None:
    corpus = synthetic_corpus(300)
    with run_server() as server:
        for encoding in ENCODINGS:
            size = 3 * corpus.raw_bytes
            with bulk_client(server, corpus.plain, encoding=encoding, stream_bytes=size) as client:
                client.go()
                (done,) = client.events()
            assert isinstance(done, BulkDone)
            assert (done.status, done.accepted, done.raw_bytes) == (200, 900, size)


@pytest.mark.usefixtures("fake_program")
def test_bulk_client_repeats_until_stopped_and_finishes_the_last_upload() -> None:
    corpus = synthetic_corpus(300)
    with (
        run_server() as server,
        bulk_client(server, corpus.plain, until_stop=True) as client,
    ):
        client.go()
        events = client.events()
        next(events)
        client.stop()
        count = 1 + sum(1 for _ in events)
        assert server.wait_count(count * 300) == count * 300


@pytest.mark.usefixtures("fake_program")
@pytest.mark.parametrize("rate_per_s", [0.0, 300.0])
def test_small_client_counts_every_answer_once(rate_per_s: float) -> None:
    corpus = synthetic_corpus(300)
    with (
        run_server() as server,
        small_client(server, corpus.plain, 4, rate_per_s=rate_per_s) as client,
    ):
        client.go()
        answered = 0
        while not answered:
            answered = client.mark().answered
        last = client.stop()
        assert last.last
        answered += last.answered
        assert server.wait_count(answered) == answered


@pytest.mark.usefixtures("fake_program")
def test_small_client_by_its_own_clock_gives_warm_up_window_and_rest() -> None:
    corpus = synthetic_corpus(300)
    with (
        run_server() as server,
        small_client(server, corpus.plain, 2, warmup_s=0.05, window_s=0.1) as client,
    ):
        client.go()
        windows = client.finished()
        assert len(windows) == 3
        assert 0 < windows[1].p50_ms <= windows[1].p99_ms <= windows[1].max_ms
        answered = sum(window.answered for window in windows)
        assert server.wait_count(answered) == answered


@pytest.mark.usefixtures("fake_program")
def test_clients_show_their_token() -> None:
    corpus = synthetic_log_corpus(300)
    with run_server() as server:
        door = server.ingest_door()
        done = upload(door, corpus.path("gzip"), "gzip")
        assert (done.status, done.accepted) == (200, 300)
        keyless = Door(door.host, door.port, door.target, "")
        assert upload(keyless, corpus.plain, "none").status == 401
        with small_client(server.log_door(), corpus.plain, 2, warmup_s=0.05, window_s=0.1) as one:
            one.go()
            windows = one.finished()
        assert not sum(window.refused for window in windows)
        answered = sum(window.answered for window in windows)
        assert server.wait_count(300 + answered, table="logs") == 300 + answered


def test_a_program_that_does_not_start_is_reported_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    from bench import server

    program = [sys.executable, "-c", "raise SystemExit('no such luck')"]
    monkeypatch.setattr(server, "PROGRAM", program)
    with pytest.raises(ServerUnavailable, match="no such luck"), run_server():
        pass
