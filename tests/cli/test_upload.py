"""Uploads: parts at line ends, retries, resume, counts and exit codes."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import trio
import zstandard
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.cli import main, upload_parts, upload_run
from ingester.cli.upload_parts import (
    Compression,
    DoneParts,
    Plan,
    UploadBroken,
    read_parts,
    state_path,
)
from tests.cli.doors import HANG_UP, Answer, Door, Request, open_door, write_events


@pytest.fixture
def door() -> Iterator[Door]:
    with open_door() as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits between attempts are recorded, not slept."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr("ingester.cli.upload_run.trio.sleep", sleep)
    return waits


def run(*arguments: object, env: Any = None) -> Result:
    return CliRunner().invoke(main, ["upload", *map(str, arguments)], env=env)


def test_a_file_arrives_whole_and_the_counts_are_summed(door: Door, tmp_path: Path) -> None:
    lines = write_events(tmp_path / "a.ndjson", 1000)
    result = run(tmp_path / "a.ndjson", "--url", door.url, "--part-bytes", "16KiB", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["accepted"], document["rejected"]) == (1000, 0)
    assert document["parts"] == len(door.requests) > 3
    assert sorted(door.lines()) == sorted(lines)
    assert {request.path for request in door.requests} == {"/v1/authkey/apikey"}
    assert {request.headers["content-encoding"] for request in door.requests} == {"zstd"}
    assert not state_path(tmp_path / "a.ndjson").exists()


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("container", ["none", "gzip", "gzip-members", "zstd", "zstd-frames"])
@pytest.mark.parametrize("part", ["1KiB", "64MiB"])
def test_every_container_arrives_in_every_compression(
    door: Door, tmp_path: Path, container: str, compression: str, part: str
) -> None:
    path = tmp_path / "events"
    lines = write_events(path, 200)
    raw = path.read_bytes()
    half = len(raw) // 2
    pack = {
        "none": lambda: raw,
        "gzip": lambda: gzip.compress(raw),
        "gzip-members": lambda: gzip.compress(raw[:half]) + gzip.compress(raw[half:]) + b"\0" * 9,
        "zstd": lambda: zstandard.compress(raw),
        "zstd-frames": lambda: zstandard.compress(raw[:half]) + zstandard.compress(raw[half:]),
    }
    path.write_bytes(pack[container]())
    result = run(path, "--url", door.url, "--compress", compression, "--part-bytes", part)
    assert result.exit_code == 0, result.output
    assert sorted(door.lines()) == sorted(lines)
    wanted = None if compression == "none" else compression
    assert {request.headers.get("content-encoding") for request in door.requests} == {wanted}
    if part == "64MiB":
        assert len(door.requests) == 1


def test_a_small_compressed_file_is_sent_as_it_is(door: Door, tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    write_events(path, 50)
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert run(path, "--url", door.url).exit_code == 0
    assert door.requests[0].body == path.read_bytes()


def test_rejected_lines_end_with_exit_code_4(door: Door, tmp_path: Path) -> None:
    write_events(tmp_path / "a", 20, wrong=3)
    result = run(tmp_path / "a", "--url", door.url)
    assert result.exit_code == 4
    assert "17 accepted, 3 rejected" in result.stdout
    assert "FROM rejects" in result.stderr


def test_standard_input_is_uploaded_and_not_resumed(door: Door) -> None:
    command = [sys.executable, "-m", "ingester", "upload", "-", "--url", door.url, "--json"]
    done = subprocess.run(
        command, input=b'{"a":1}\n{"a":2}\n', stdout=subprocess.PIPE, timeout=60, check=True
    )
    assert json.loads(done.stdout)["accepted"] == 2
    assert door.lines() == [b'{"a":1}', b'{"a":2}']
    assert run("-", "--url", door.url, "--resume").exit_code == 2


def test_an_empty_file_sends_nothing(door: Door, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert run(tmp_path / "a", "--url", door.url).exit_code == 0
    assert door.requests == []


def test_temporary_refusals_and_lost_connections_are_retried_with_the_same_key(
    door: Door, tmp_path: Path, no_waiting: list[float]
) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    script: list[Answer] = [
        HANG_UP,
        (503, {"Retry-After": "7"}, b'{"error": "draining"}'),
        (429, {"Retry-After": date}, b""),
        (408, {}, b""),
        (500, {"Retry-After": "soon"}, b""),
    ]
    door.reply = lambda request: script.pop(0) if script else None
    lines = write_events(tmp_path / "a", 10)
    result = run(tmp_path / "a", "--url", door.url, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["retries"] == len(no_waiting) == 5
    assert sorted(door.lines()) == sorted(lines)
    assert len({request.headers["idempotency-key"] for request in door.requests}) == 1
    assert 0.25 <= no_waiting[0] <= 0.5
    assert 7 <= no_waiting[1] <= 7.7
    assert 90 <= no_waiting[2] <= 110
    assert 2 <= no_waiting[3] <= 4
    assert "draining" in result.stderr


def test_an_answer_lost_after_storing_does_not_store_twice(door: Door, tmp_path: Path) -> None:
    seen: set[str] = set()

    def lose_first_answers(request: Request) -> Answer | None:
        key = request.headers["idempotency-key"]
        if key not in seen:
            seen.add(key)
            door.stored[key] = request
            return HANG_UP
        return None

    door.reply = lose_first_answers
    lines = write_events(tmp_path / "a", 300)
    assert run(tmp_path / "a", "--url", door.url, "--part-bytes", "4KiB").exit_code == 0
    assert sorted(door.lines()) == sorted(lines)


def test_retries_end_and_resume_goes_on_where_it_stopped(door: Door, tmp_path: Path) -> None:
    path = tmp_path / "a"
    lines = write_events(path, 400)
    taken = 0

    def take_three(request: Request) -> Answer | None:
        nonlocal taken
        taken += 1
        return None if taken <= 3 else (503, {}, b"")

    door.reply = take_three
    arguments = (path, "--url", door.url, "--part-bytes", "4KiB", "--retries", "2")
    result = run(*arguments, "--json")
    assert result.exit_code == 1
    assert "tried 3 times" in json.loads(result.stdout)["error"]
    assert "--resume" in result.stderr
    assert state_path(path).exists()
    assert "authkey" not in state_path(path).read_text()
    before = len(door.requests)
    door.reply = lambda request: None
    # The part size of the first run counts, or the keys would not match.
    result = run(path, "--url", door.url, "--part-bytes", "1KiB", "--resume", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["accepted"] == 400
    assert document["bytes_resumed"] > 0
    # One that was in flight when the first run ended may come again, under its key.
    assert document["parts"] in {len(door.stored) - 3, len(door.stored) - 2}
    assert len(door.requests) > before
    assert sorted(door.lines()) == sorted(lines)
    assert not state_path(path).exists()


@pytest.mark.parametrize("container", ["gzip", "zstd"])
def test_a_compressed_file_resumes_by_decoded_offset(
    door: Door, tmp_path: Path, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_parts, "AS_IS_BYTES_MAX", 0)
    path = tmp_path / "a"
    lines = write_events(path, 400)
    raw = path.read_bytes()
    path.write_bytes(gzip.compress(raw) if container == "gzip" else zstandard.compress(raw))
    door.reply = lambda request: (503, {}, b"") if len(door.stored) >= 2 else None
    assert run(path, "--url", door.url, "--part-bytes", "8KiB", "--retries", "0").exit_code == 1
    door.reply = lambda request: None
    result = run(path, "--url", door.url, "--resume")
    assert result.exit_code == 0, result.output
    assert sorted(door.lines()) == sorted(lines)


def test_starting_over_says_so_and_the_same_keys_store_nothing_twice(
    door: Door, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    write_events(path, 100)
    door.reply = lambda request: (503, {}, b"") if len(door.stored) >= 1 else None
    arguments = (path, "--url", door.url, "--part-bytes", "1KiB", "--retries", "0")
    assert run(*arguments).exit_code == 1
    door.reply = lambda request: None
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "starts over" in result.stderr
    assert len(door.lines()) == 100
    assert run(*arguments, "--again").exit_code == 0
    assert len(door.lines()) == 200


def test_a_changed_file_is_not_resumed(door: Door, tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_events(path, 100)
    door.reply = lambda request: (503, {}, b"") if len(door.stored) >= 1 else None
    assert run(path, "--url", door.url, "--part-bytes", "1KiB", "--retries", "0").exit_code == 1
    write_events(path, 101)
    result = run(path, "--url", door.url, "--resume")
    assert result.exit_code == 1
    assert "has changed" in result.stderr


def test_a_damaged_progress_file_is_named(door: Door, tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_events(path, 1)
    state_path(path).write_text("{")
    result = run(path, "--url", door.url, "--resume")
    assert result.exit_code == 1
    assert "remove it" in result.stderr


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, b"", "unknown or revoked"),
        (401, b'{"error": "a Bearer token was expected"}', "Bearer token"),
        (413, b"", "--part-bytes"),
        (301, b"", "redirects"),
    ],
)
def test_a_final_refusal_ends_at_once_with_advice(
    door: Door, tmp_path: Path, status: int, body: bytes, words: str
) -> None:
    write_events(tmp_path / "a", 1000)
    door.reply = lambda request: (status, {}, body)
    result = run(tmp_path / "a", "--url", door.url, "--part-bytes", "1KiB")
    assert result.exit_code == 1
    assert words in result.stderr
    assert "authkey" not in result.stderr
    assert len(door.requests) <= 2


def test_an_unreachable_server_is_exit_code_3_at_once(tmp_path: Path) -> None:
    write_events(tmp_path / "a", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1/a/b"
        result = run(tmp_path / "a", "--url", url, "--json")
    assert result.exit_code == 3
    assert "not reachable" in json.loads(result.stdout)["error"]
    assert not state_path(tmp_path / "a").exists()


def test_a_server_without_counts_is_reported_as_such(door: Door, tmp_path: Path) -> None:
    write_events(tmp_path / "a", 1)
    door.reply = lambda request: (200, {}, b"")
    result = run(tmp_path / "a", "--url", door.url, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["accepted"] is None
    assert "no counts" in run(tmp_path / "a", "--url", door.url).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--url", "ftp://x/v1/a/b"],
        ["--url", "http://x:port/v1/a/b"],
        ["--url", "http://x/v1/a/b c"],
        ["--source", "shop", "--api-key", "k"],
        ["--ingest", "web"],
        ["--ingest", "a/b", "--token", "t"],
        ["--ingest", "web", "--token", "t", "--url", "http://x/v1/a/b"],
        ["--url", "http://x/v1/a/b", "--as", "events"],
        ["--source", "shop", "--url", "http://x/v1/a/b"],
        ["--url", "http://x/v1/a/b", "--part-bytes", "10"],
        ["--url", "http://x/v1/a/b", "--parallel", "0"],
    ],
)
def test_wrong_usage_is_exit_code_2(tmp_path: Path, arguments: list[str]) -> None:
    write_events(tmp_path / "a", 1)
    assert run(tmp_path / "a", *arguments).exit_code == 2


def test_a_source_and_its_keys_make_the_url(door: Door, tmp_path: Path) -> None:
    write_events(tmp_path / "a", 1)
    base = door.url.removesuffix("/v1/authkey/apikey")
    env = {
        "INGESTER_AUTH_KEY": "A1",
        "INGESTER_API_KEY": "K1",
        "INGESTER_INTAKE_PUBLIC_URL": base,
        "INGESTER_STORE_DATA_DIR": str(tmp_path / "none"),
    }
    assert run(tmp_path / "a", "--source", "shop", env=env).exit_code == 0
    assert door.requests[0].path == "/v1/A1/K1"


def test_the_keys_of_a_source_are_taken_from_the_data_folder(door: Door, tmp_path: Path) -> None:
    write_events(tmp_path / "a", 1)
    env = {
        "INGESTER_INTAKE_PUBLIC_URL": door.url.removesuffix("/v1/authkey/apikey"),
        "INGESTER_STORE_DATA_DIR": str(tmp_path / "data"),
    }
    (tmp_path / "data").mkdir()
    made = CliRunner().invoke(main, ["source", "create", "shop", "--json"], env=env)
    pair = json.loads(made.stdout)
    assert run(tmp_path / "a", "--source", "shop", env=env).exit_code == 0
    assert door.requests[0].path == f"/v1/{pair['auth_key']}/{pair['api_key']}"
    unknown = run(tmp_path / "a", "--source", "none", env=env)
    assert unknown.exit_code == 1
    assert "none" in unknown.stderr


def test_lines_go_to_the_honest_door_with_a_token(door: Door, tmp_path: Path) -> None:
    write_events(tmp_path / "a", 3)
    base = door.url.removesuffix("/v1/authkey/apikey")
    env = {"INGESTER_TOKEN": "t1", "INGESTER_INTAKE_PUBLIC_URL": base}
    assert run(tmp_path / "a", "--ingest", "web", env=env).exit_code == 0
    assert run(tmp_path / "a", "--ingest", "web", "--as", "events", env=env).exit_code == 0
    url = f"{base}/ingest/other"
    assert run(tmp_path / "a", "--url", url, "--token", "t2").exit_code == 0
    assert [(r.path, r.headers["authorization"]) for r in door.requests] == [
        ("/ingest/web", "Bearer t1"),
        ("/ingest/web?as=events", "Bearer t1"),
        ("/ingest/other", "Bearer t2"),
    ]
    report = b'{"rejected": 3, "errors": [{"line": 1, "detail": "a value is missing"}]}'
    door.reply = lambda request: (400, {}, report)
    refused = run(tmp_path / "a", "--ingest", "web", env=env)
    assert refused.exit_code == 1
    assert "line 1: a value is missing" in refused.stderr
    assert "t1" not in refused.stderr


def test_a_missing_or_cut_file_is_named(door: Door, tmp_path: Path) -> None:
    assert "No such file" in run(tmp_path / "absent", "--url", door.url).stderr
    packed = {"gz": gzip.compress(b'{"a":1}\n' * 999), "zst": zstandard.compress(b"{}\n" * 999)}
    for name, content in packed.items():
        path = tmp_path / name
        for broken in (content[:-5], content[:10] + b"\xff\xff" + content[12:]):
            path.write_bytes(broken)
            result = run(path, "--url", door.url, "--compress", "none")
            assert result.exit_code == 1
            assert str(path) in result.stderr
            assert "cut short" in result.stderr or "damaged" in result.stderr


def test_an_unwritable_folder_is_no_reason_to_stop(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: DoneParts, path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(DoneParts, "save", refuse)
    write_events(tmp_path / "a", 10)
    result = run(tmp_path / "a", "--url", door.url)
    assert result.exit_code == 0
    assert "will not work" in result.stderr


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=40),
    part_bytes=st.integers(1, 120),
    last_end=st.booleans(),
)
def test_parts_are_whole_lines_and_together_the_file(
    lines: list[bytes], part_bytes: int, last_end: bool
) -> None:
    raw = b"\n".join(lines) + (b"\n" if last_end else b"")
    plan = _plan(len(raw), part_bytes)
    parts = list(read_parts(_reader(raw), plan, DoneParts(plan=plan)))
    bodies = [b"".join(part.body) for part in parts]
    assert b"".join(bodies) == raw
    assert all(body.endswith(b"\n") for body in bodies[:-1])
    # No part holds a line more than it must: without its last line it is too small.
    assert all(len(body[:-1].rpartition(b"\n")[0]) + 1 <= part_bytes for body in bodies)
    assert [part.offset for part in parts] == [
        sum(map(len, bodies[:number])) for number in range(len(bodies))
    ]
    assert len({part.key for part in parts}) == len(parts)
    # Any set of parts done before is left out, and nothing else.
    for kept in (0, 1):
        done = DoneParts(plan=plan)
        for part in parts[kept::2]:
            done.add(part, 1, 0)
        rest = list(read_parts(_reader(raw), plan, done))
        assert [part.key for part in rest] == [part.key for part in parts[1 - kept :: 2]]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_a_part_has_the_same_bytes_however_the_file_is_read(
    compression: Compression, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = b"".join(b'{"n":%d,"pad":"%s"}\n' % (n, b"ab" * (n * 37 % 211)) for n in range(9000))
    plan = _plan(len(raw), 700_000)
    plan.compression = compression
    runs = []
    for read_bytes, first in [(1024 * 1024, 0), (1000, 0), (77_777, 0), (1024 * 1024, 1)]:
        monkeypatch.setattr(upload_parts, "_READ_BYTES", read_bytes)
        done = DoneParts(plan=plan)
        for part in runs[0][:first] if runs else []:
            done.add(part, 1, 0)
        runs.append(list(read_parts(_reader(raw), plan, done)))
    assert len(runs[0]) == 3
    wanted = [(part.key, b"".join(part.body)) for part in runs[0]]
    for parts, first in zip(runs, [0, 0, 0, 1], strict=True):
        assert [(part.key, b"".join(part.body)) for part in parts] == wanted[first:]


def test_a_file_without_line_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_parts, "_LINE_SLACK_BYTES", 10)
    monkeypatch.setattr(upload_parts, "_READ_BYTES", 10)
    plan = _plan(1000, 20)
    with pytest.raises(UploadBroken, match="no line end"):
        list(read_parts(_reader(b"x" * 1000), plan, DoneParts(plan=plan)))


def test_what_is_appended_meanwhile_is_left_alone() -> None:
    plan = _plan(4, 100)
    (part,) = read_parts(_reader(b"{}\n\n{}\n"), plan, DoneParts(plan=plan))
    assert b"".join(part.body) == b"{}\n\n"


def test_retry_after_forms() -> None:
    assert upload_run._retry_after("") == 0
    assert upload_run._retry_after("12") == 12
    assert upload_run._retry_after("-3") == 0
    assert upload_run._retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert upload_run._retry_after("tomorrow") == 0


def _plan(size: int, part_bytes: int) -> Plan:
    return Plan(
        identity=(1, size, 2),
        container="none",
        compression="none",
        as_is=False,
        part_bytes=part_bytes,
    )


def _reader(raw: bytes) -> Any:
    return BytesIO(raw)
