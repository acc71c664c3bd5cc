"""The corpus: the same bytes each time, valid events, real payloads untouched."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from bench import corpus, real_lines


def _lines(blocks: object) -> list[bytes]:
    return b"".join(blocks).splitlines()  # type: ignore[arg-type]


def test_synthetic_events_are_the_same_bytes_everywhere() -> None:
    digest = hashlib.sha256(b"".join(corpus.synthetic_blocks(4000))).hexdigest()
    assert digest == "6098d464b8a0f21e8a6102b869f5a612fed5772437a1ff90ddda80a2e44b56dd"


def test_a_short_corpus_is_the_beginning_of_a_long_one() -> None:
    assert _lines(corpus.synthetic_blocks(7000))[:3100] == _lines(corpus.synthetic_blocks(3100))


def test_synthetic_events_are_valid_and_of_the_named_size() -> None:
    lines = _lines(corpus.synthetic_blocks(3000))
    assert len(lines) == 3000
    assert 320 < sum(map(len, lines)) / 3000 < 360
    actions = set()
    for line in lines:
        event = json.loads(line)
        assert all(event[name] for name in ("accountId", "userId", "action", "sessionId"))
        assert isinstance(event["createdAt"], int)
        actions.add(event["action"])
    assert actions >= {"identifyUser", "identifyAccount", "sessionSync", "moduleEnd", "feature"}
    assert not b"".join(lines).isascii()


def test_dirty_corpus_refuses_one_line_in_a_thousand() -> None:
    found = corpus.dirty_corpus(7000)
    assert (found.events, found.rejects) == (6993, 7)
    clean = _lines(corpus.synthetic_blocks(7000))
    dirty = found.plain.read_bytes().split(b"\n")[:-1]
    assert [n for n, (a, b) in enumerate(zip(clean, dirty, strict=True), 1) if a != b] == [
        1000, 2000, 3000, 4000, 5000, 6000, 7000
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", corpus.ENCODINGS)
def test_every_encoding_holds_the_same_lines(encoding: corpus.Encoding) -> None:
    found = corpus.synthetic_corpus(500)
    assert corpus.inflated_bytes(found.path(encoding), encoding) == found.plain.read_bytes()
    assert found.raw_bytes == found.plain.stat().st_size


def test_a_cached_corpus_is_not_written_again() -> None:
    first = corpus.synthetic_corpus(100)
    inode = first.plain.stat().st_ino
    assert corpus.synthetic_corpus(100) == first
    assert first.plain.stat().st_ino == inode
    assert not list(first.plain.parent.glob("*.tmp"))


def test_a_file_of_the_callers_is_decoded_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "mine.ndjson.gz"
    path.write_bytes(gzip.compress(b'{"a":1}\n\n{"a":2}'))
    found = corpus.open_corpus(str(path), 0)
    assert found is not None
    assert (found.events, found.plain.read_bytes()) == (2, b'{"a":1}\n\n{"a":2}')


def test_real_lines_keep_their_bytes_and_repeat_a_week_later(tmp_path: Path) -> None:
    line = b'{"ts":"2025-12-19T15:41:12.721+09:00", "event":"metrics","m":{"a":0.10,"a":1}}'
    (tmp_path / "host-metrics.ndjson").write_bytes(line + b"\r\n\n" + line + b"\n")
    lines = _lines(real_lines.blocks(tmp_path, 5))
    assert len(lines) == 5
    assert all(one.endswith(b',"payload":' + line + b"}") for one in lines)
    first, again = json.loads(lines[0]), json.loads(lines[2])
    assert first["createdAt"] == 1766126472721
    assert again["createdAt"] - first["createdAt"] == 7 * 24 * 3600 * 1000
    assert {**first, "createdAt": 0} == {**again, "createdAt": 0}


def test_a_folder_without_known_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        _lines(real_lines.blocks(tmp_path, 5))


@pytest.mark.skipif(real_lines.find_directory() is None, reason="real data is not beside us")
def test_every_real_file_maps_to_valid_events() -> None:
    directory = real_lines.find_directory()
    assert directory is not None
    for name, envelope in real_lines.REAL_FILES:
        for block, _ in real_lines._file_events(directory / name, envelope, 0, 50):
            for line in block.splitlines():
                event = json.loads(line)
                names = ("accountId", "userId", "action", "sessionId")
                assert all(isinstance(event[one], str) and event[one] for one in names), name
                assert 0 <= event["createdAt"] < 253402300800000
