"""The corpora of logs and metrics: the same bytes each time, what the product takes, the mix."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from bench import log_corpus, metric_corpus, real_lines
from ingester.protocol.body_decoder import BodyLimits
from ingester.protocol.log_requests import read_honest_logs


def _lines(blocks: object) -> list[bytes]:
    return b"".join(blocks).splitlines()  # type: ignore[arg-type]


def test_synthetic_logs_are_the_same_bytes_everywhere() -> None:
    digest = hashlib.sha256(b"".join(log_corpus.log_blocks(4000))).hexdigest()
    assert digest == "35d84c6f3630d830af5dd536dc8257eaa3f155499ea82d3e44bf8509f72cc032"


def test_synthetic_metrics_are_the_same_bytes_everywhere() -> None:
    digest = hashlib.sha256(b"".join(metric_corpus.metric_blocks(50, 100))).hexdigest()
    assert digest == "29f0844950be14f9891b043f768ee3cd63c7d1c2a54dbbfd9c70ea6336cfb16a"


def test_a_short_corpus_is_the_beginning_of_a_long_one() -> None:
    assert _lines(log_corpus.log_blocks(7000))[:3100] == _lines(log_corpus.log_blocks(3100))


def test_synthetic_logs_are_objects_of_the_named_size_and_mix() -> None:
    lines = _lines(log_corpus.log_blocks(3000))
    assert len(lines) == 3000
    assert 280 < sum(map(len, lines)) / 3000 < 320
    kinds: Counter[str] = Counter()
    for line in lines:
        log = json.loads(line)
        kinds["level " + type(log.get("level", log.get("severity"))).__name__] += 1
        kinds["time " + type(log.get("timestamp", log.get("time", log.get("ts")))).__name__] += 1
        kinds["said"] += bool(log.get("message") or log.get("msg"))
        kinds["failed"] += "error" in log
        assert line == json.dumps(log, ensure_ascii=False, separators=(",", ":")).encode()
    assert min(kinds[f"level {name}"] for name in ("str", "int", "NoneType")) > 300
    assert min(kinds[f"time {name}"] for name in ("str", "int", "float")) > 300
    assert kinds["time NoneType"] == 0
    assert 2800 < kinds["said"] < 3000
    assert 50 < kinds["failed"] < 150


def test_every_synthetic_log_has_a_time_that_counts() -> None:
    data = b"".join(log_corpus.log_blocks(2000))
    now_us = 1_795_000_000_000_000
    read = read_honest_logs(
        data, BodyLimits(), received_at_us=now_us, rejects_max=1, is_plain=False
    )
    assert (len(read.rows), read.rejected_count) == (2000, 0)
    assert all(row.time_us < now_us for row in read.rows)


def test_metric_requests_hold_as_many_metrics_as_asked() -> None:
    found = metric_corpus.metric_corpus(20, 100)
    lines = found.plain.read_bytes().splitlines()
    assert (found.events, len(lines)) == (20, 20)
    keys: Counter[str] = Counter()
    for line in lines:
        body = json.loads(line)
        assert body["projectId"] == metric_corpus.PROJECT_ID
        assert len(body["metrics"]) == 100
        keys.update(key for metric in body["metrics"] for key in metric)
    assert keys["value"] == keys["metricId"] == keys["metricName"] == keys["timestamp"] == 2000
    assert 0 < keys["metadata"] < keys["unit"] < 2000


def test_real_logs_are_the_lines_of_the_files(tmp_path: Path) -> None:
    for number, name in enumerate(real_lines.LOG_FILES):
        with gzip.open(tmp_path / name, "wb") as file:
            file.write(b'{"n":%d, "a":0.10}\r\n\n{"n":%d}' % (number, number))
    found = log_corpus.real_log_corpus(8, tmp_path)
    assert found is not None
    lines = found.plain.read_bytes().split(b"\n")[:-1]
    assert lines[:2] == [b'{"n":0, "a":0.10}', b'{"n":0}']
    assert [json.loads(line)["n"] for line in lines] == [0, 0, 1, 1, 2, 2, 0, 0]


def test_a_folder_without_the_log_files_is_no_corpus(tmp_path: Path) -> None:
    assert log_corpus.real_log_corpus(8, tmp_path) is None


@pytest.mark.skipif(real_lines.find_directory() is None, reason="real data is not beside us")
def test_real_logs_are_taken_by_the_product() -> None:
    found = log_corpus.open_log_corpus("real", 400)
    assert found is not None
    read = read_honest_logs(
        found.plain.read_bytes(),
        BodyLimits(),
        received_at_us=1_795_000_000_000_000,
        rejects_max=1,
        is_plain=False,
    )
    assert (len(read.rows), read.rejected_count) == (400, 0)
