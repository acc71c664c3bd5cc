"""Queries in their processes: what is taken, the formats, who may ask, the deadline, a crash."""

from __future__ import annotations

import io
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trio

from ingester.errors import Overloaded
from ingester.sandbox import queries as queries_module
from ingester.sandbox.messages import Format, QueryCut, QueryRefused, QueryTimeout
from ingester.sandbox.process import QueryProcess
from ingester.sandbox.queries import Answer
from tests.sandbox.asking import Asking, add_events, open_asking

ENDLESS = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range + b.range < 0"

TAKEN: list[tuple[str, Any]] = [
    ("SELECT count(*) AS n FROM requests;", [[3]]),
    ("FROM requests SELECT count(*)", [[3]]),
    ("WITH a AS (SELECT 7 AS x) SELECT x FROM a", [[7]]),
    ('WITH "two words" AS (SELECT 7 AS x) SELECT x FROM "two words"', [[7]]),
    ("WITH tables AS (SELECT 7 AS x) SELECT x FROM tables", [[7]]),
    ("WITH events AS (SELECT 7 AS x) SELECT x FROM events", [[7]]),
    ("WITH RECURSIVE r AS (SELECT 1 i UNION ALL SELECT i+1 FROM r WHERE i<4) FROM r", 4),
    ("VALUES (1), (2)", [[1], [2]]),
    ("SELECT ';', '--', $$'$$", [[";", "--", "'"]]),
    ("SELECT EVENTS.Account_Id FROM Events LIMIT 1", [["a2"]]),
    ("SELECT body->>'$.n', body->'$.n', body.n FROM events LIMIT 1", [["0.1", 0.1, 0.1]]),
    ("SELECT body FROM events LIMIT 1", [[{"n": 0.1}]]),
    ("SELECT count(DISTINCT user_id), min(created_at) FROM events GROUP BY ALL", 1),
    ("SELECT date_trunc('hour', created_at) h, count(*) FROM events GROUP BY h ORDER BY h", 1),
    ("SELECT time_bucket(INTERVAL 5 MINUTE, created_at), count(*) FROM events GROUP BY 1", 1),
    ("SELECT * FROM events WHERE created_at > now() - INTERVAL 2 DAY", 0),
    ("SELECT * EXCLUDE (body) REPLACE (upper(action) AS action) FROM events", 5),
    ("SELECT COLUMNS('.*_id') FROM events", 5),
    ("SELECT row_number() OVER (PARTITION BY account_id ORDER BY id) FROM events", 5),
    ("SELECT sum(1) OVER w FROM events WINDOW w AS (ORDER BY id ROWS 2 PRECEDING)", 5),
    ("FROM events QUALIFY row_number() OVER (PARTITION BY user_id ORDER BY id) = 1", 5),
    ("SELECT action, count(*) FILTER (WHERE user_id = 'u1') FROM events GROUP BY ROLLUP (1)", 2),
    ("SELECT grouping(action), count(*) FROM events GROUP BY CUBE (action)", 2),
    ("SELECT e.id FROM events e JOIN requests r ON e.received_at <> r.received_at", 15),
    ("SELECT 1 FROM events a ASOF JOIN events b ON a.created_at >= b.created_at", 5),
    ("SELECT 1 FROM events SEMI JOIN requests ON true", 5),
    ("SELECT k.key, k.value FROM events, json_each(body) k LIMIT 1", [["n", 0.1]]),
    ("SELECT x FROM events, LATERAL (SELECT strlen(body) AS x) LIMIT 1", [[11]]),
    ("SELECT unnest([1, 2]), unnest([3, 4])", [[1, 3], [2, 4]]),
    ("SELECT * FROM unnest(['a']) t(x)", [["a"]]),
    ("SELECT * FROM range(2), generate_series(1, 2)", 4),
    ("SELECT i FROM range(TIMESTAMP '2024-01-01', TIMESTAMP '2024-01-03', INTERVAL 1 DAY) t(i)", 2),
    ("SELECT list_transform([1, 2], lambda x: x + 1), [x + 1 FOR x IN [1] IF x > 0]", 1),
    ("SELECT {'a': 1, 'b': [2]}, MAP {'k': 1}, [1, 2, 3][2:3], (1, 2), row(1)", 1),
    ("SELECT 'a' LIKE '%a' , 'a' ILIKE 'A', 'a' SIMILAR TO 'a|b', 'abc' ~ 'b', 'a' GLOB '*'", 1),
    ("SELECT CASE 1 WHEN 1 THEN 'x' ELSE 'y' END, coalesce(NULL, 1), nullif(1, 1)", 1),
    ("SELECT 1 BETWEEN 0 AND 2, 1 IN (1, 2), 1 IN (SELECT 1), 1 = ANY (SELECT 1)", 1),
    ("SELECT EXISTS (FROM events), (SELECT max(n) FROM (SELECT 1 n)), ARRAY(SELECT 1)", 1),
    ("SELECT 1 UNION SELECT 2 UNION ALL SELECT 3 EXCEPT SELECT 4 INTERSECT SELECT 5", 3),
    ("SELECT 1 a, 2 b UNION ALL BY NAME SELECT 3 b", 2),
    ("SELECT DISTINCT ON (action) action, id FROM events ORDER BY action, id DESC", 1),
    ("SELECT id FROM events ORDER BY id DESC NULLS LAST LIMIT 2 OFFSET 1", 2),
    ("SELECT id FROM events ORDER BY ALL LIMIT 40%", 2),
    ("SELECT 1 FROM events TABLESAMPLE 100%", 5),
    ("SELECT 1 FROM events USING SAMPLE 3 ROWS", 3),
    ("FROM (PIVOT events ON action IN ('login') USING count(*) GROUP BY account_id)", [["a2", 5]]),
    ("FROM (UNPIVOT (SELECT 1 AS a, 2 AS b) ON a, b)", [["a", 1], ["b", 2]]),
    (
        "SELECT CAST('1' AS DECIMAL(10, 2)), TRY_CAST('x' AS INT), '1'::STRUCT(a INT)[]::VARCHAR",
        None,
    ),
    ("SELECT try(1 / 0), 'x' COLLATE NOCASE = 'X', DATE '2024-01-01' + 1", 1),
    ("SELECT extract(year FROM now()), timezone('Europe/Berlin', now()) IS NULL", 1),
    ("SELECT strftime(now(), '%Y'), strptime('2024', '%Y'), epoch_ms(now()) > 0", 1),
    ("SELECT quantile_cont(i, 0.5), median(i), approx_count_distinct(i) FROM range(9) t(i)", 1),
    ("SELECT arg_max(user_id, created_at), histogram(action), list(id) FROM events", 1),
    ("SELECT string_agg(user_id, ',' ORDER BY user_id DESC) FROM events", [["u4,u3,u2,u1,u0"]]),
    ("SELECT regexp_extract('a1', '\\d'), split_part('a,b', ',', 2), printf('%05d', 3)", 1),
    ("SELECT lag(user_id IGNORE NULLS) OVER (ORDER BY id) FROM events", 5),
    ("SELECT #1 FROM (SELECT 1)", [[1]]),
    ("SELECT current_date IS NULL, current_timestamp IS NULL, current_user = 'x'", 1),
    ("SELECT json_extract(body, ['$.n']), json_group_array(user_id) FROM events GROUP BY 1", 1),
    ("SELECT to_json(e) FROM events e LIMIT 1", 1),
    ("SELECT random() < 2, uuid() <> uuid(), md5('x'), sha256('x'), hash(1) > 0", 1),
    ("DESCRIBE events", 10),
    ("DESCRIBE SELECT 1 AS a", 1),
    ("SUMMARIZE FROM requests", 10),
    ("FROM logs UNION ALL FROM logs", 0),
    ("SELECT count(*) FROM metrics, rejects", [[0]]),
    ('SELECT \'SELECT * FROM read_blob(x)\', \'{"class": "FUNCTION", "function_name": "x"}\'', 1),
]


async def test_a_select_in_any_form_is_taken(tmp_path: Path) -> None:
    async with open_asking(tmp_path) as asking:
        answers = await asking.each([sql for sql, _ in TAKEN])
    for (sql, expected), answer in zip(TAKEN, answers, strict=True):
        if expected is None:
            assert isinstance(answer, QueryRefused)
            assert re.search(r"convert|Unimplemented|cast", str(answer)), (sql, answer)
            continue
        assert isinstance(answer, bytes), (sql, answer)
        rows = json.loads(answer)["rows"]
        assert (len(rows) if isinstance(expected, int) else rows) == expected, sql


VALUES_SQL = """
    SELECT TIMESTAMP '2024-05-01 12:00:00' AS t, TIMESTAMPTZ '2024-05-01 12:00:00+02' AS tz,
    '{"a": [0.10, 12345678901234567890]}'::JSON AS j, 9223372036854775807 AS i,
    'nan'::DOUBLE AS nan, '-inf'::FLOAT AS inf, encode('café') AS b, '\\xFF\\x00'::BLOB AS raw,
    1.50::DECIMAL(9, 2) AS d, 170141183460469231731687303715884105727 AS h, NULL AS n,
    DATE '2024-05-01' AS day, [TIMESTAMP '2024-05-01'] AS l, {'x': 'nan'::DOUBLE} AS s,
    '20000-01-01'::TIMESTAMP AS far, true AS yes, uuid() IS NOT NULL AS u
"""


async def test_values_have_their_documented_form(tmp_path: Path) -> None:
    async with open_asking(tmp_path) as asking:
        text = (await asking.bytes(VALUES_SQL)).decode()
        lines = (await asking.bytes(VALUES_SQL, "ndjson")).decode()
    document = json.loads(text)
    expected = {
        "t": "2024-05-01T12:00:00.000000Z",
        "tz": "2024-05-01T10:00:00.000000Z",
        "j": {"a": [0.1, 12345678901234567890]},
        "i": 9223372036854775807,
        "nan": None,
        "inf": None,
        "b": "café",
        "raw": "base64:/wA=",
        "d": 1.5,
        "h": 170141183460469231731687303715884105727,
        "n": None,
        "day": "2024-05-01",
        "l": ["2024-05-01T00:00:00.000000Z"],
        "s": {"x": None},
        "far": "20000-01-01T00:00:00.000000Z",
        "yes": True,
        "u": True,
    }
    assert dict(zip(document["columns"], document["rows"][0], strict=True)) == expected
    assert json.loads(lines) == expected
    for form in (text, lines):
        assert '{"a": [0.10, 12345678901234567890]}' in form
        assert "1.50" in form
    assert document["types"][:4] == ["TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "JSON", "BIGINT"]


async def test_every_format_has_the_same_rows(tmp_path: Path) -> None:
    sql = "SELECT id, created_at, body, batch_id FROM events ORDER BY id"
    async with open_asking(tmp_path, with_spare=True) as asking:
        by_name: dict[Format, bytes] = {}
        names: tuple[Format, ...] = ("json", "csv", "ndjson", "parquet", "arrow")
        for name in names:
            by_name[name] = await asking.bytes(sql, name)
            assert by_name[name]
        empty = await asking.bytes("SELECT id, body FROM events WHERE false", "parquet")
        empty_arrow = await asking.bytes("SELECT l.id, body FROM logs l, events", "arrow")
    rows = json.loads(by_name["json"])["rows"]
    assert len(rows) == 5
    ids = [row[0] for row in rows]
    assert [json.loads(line)["id"] for line in by_name["ndjson"].splitlines()] == ids
    lines = by_name["csv"].decode().split("\r\n")
    assert lines[0] == "id,created_at,body,batch_id"
    assert lines[1].startswith(f'{ids[0]},2023-11-14T22:13:20.000000Z,"{{""n"": 0.10}}",')
    assert [line.partition(",")[0] for line in lines[1:-1]] == ids
    parquet = pq.read_table(io.BytesIO(by_name["parquet"]))
    arrow = pa.ipc.open_stream(by_name["arrow"]).read_all()
    for table in (parquet, arrow):
        assert table.column("id").to_pylist() == ids
        assert table.column("body").to_pylist() == ['{"n": 0.10}'] * 5
        assert table.schema.field("batch_id").type == pa.int64()
        assert pa.types.is_timestamp(table.schema.field("created_at").type)
    assert pq.read_table(io.BytesIO(empty)).num_rows == 0
    assert pa.ipc.open_stream(empty_arrow).read_all().num_rows == 0


async def test_a_large_result_comes_in_pieces_and_whole(tmp_path: Path) -> None:
    sql = "SELECT i, repeat('x', 100) AS s FROM range(300000) t(i)"
    async with open_asking(tmp_path) as asking:
        sizes: list[int] = []
        lines = 0
        async with await asking.queries.ask(sql, "ndjson") as answer:
            assert answer.content_type == "application/x-ndjson"
            while piece := await answer.receive():
                sizes.append(len(piece))
                lines += piece.count(b"\n")
            assert await answer.receive() == b""
        assert lines == 300_000
        assert len(sizes) > 100
        assert max(sizes) <= 256 * 1024
        table = pq.read_table(io.BytesIO(await asking.bytes(sql, "parquet")))
        assert table.num_rows == 300_000


async def test_a_result_is_bounded_in_rows_and_bytes(tmp_path: Path) -> None:
    async with open_asking(tmp_path) as asking:
        assert (await asking.bytes("FROM range(1000000)")).count(b"[") == 1_000_003
        for name in ("json", "csv", "arrow"):
            with pytest.raises(QueryRefused, match="more than 1,000,000 rows; add a LIMIT"):
                await asking.bytes("FROM range(1000001)", name)
        # What goes wrong behind the first 16 MiB ends the answer in the middle.
        with pytest.raises(QueryCut, match="more than 1,000,000 rows"):
            await asking.bytes("SELECT repeat('x', 100) FROM range(1000001)", "csv")


async def test_the_place_of_an_error_is_told(tmp_path: Path) -> None:
    places = {
        "SELEC 1": 1,
        "SELECT 'é', nope FROM events": 13,
        "SELECT 'é', getenv('x')": 13,
        "SELECT 1,\n  nope\nFROM events": 13,
        "SELECT * FROM nope": 15,
        "SELECT " + "1, " * 200 + "nope FROM events": 608,
        "SELECT 1 FROM events WHERE": 27,
    }
    async with open_asking(tmp_path, with_spare=True) as asking:
        for sql, column in places.items():
            with pytest.raises(QueryRefused) as caught:
                await asking.bytes(sql)
            assert caught.value.column == column, (sql, str(caught.value))
            assert "Error:" not in str(caught.value)


async def test_a_query_ends_at_its_deadline_and_its_process_with_it(tmp_path: Path) -> None:
    async with open_asking(tmp_path, query_seconds_max=1) as asking:
        pids: list[int] = []
        start = QueryProcess.start

        async def noted() -> QueryProcess:
            process = await start()
            pids.append(process.pid)
            return process

        asking.queries._take_process = noted  # type: ignore[method-assign]
        with pytest.raises(QueryTimeout, match="longer than 1 s"):
            await asking.bytes(ENDLESS)
        assert not is_running(pids[0])
        assert asking.queries.counters.timed_out == 1


async def test_more_than_a_few_are_told_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries_module, "WAIT_SECONDS_MAX", 0.3)
    async with open_asking(tmp_path, query_seconds_max=3) as asking:
        outcomes: list[str] = []

        async def ask() -> None:
            try:
                await asking.bytes(ENDLESS)
            except (QueryTimeout, Overloaded) as error:
                outcomes.append(type(error).__name__)
                assert getattr(error, "retry_after_s", 1) > 0  # noqa: PT017

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask)
        assert sorted(outcomes) == ["Overloaded"] * 8 + ["QueryTimeout"] * 2
        assert asking.queries.counters.turned_away == 8
        assert asking.queries.statistics()["running"] == 0
        assert await asking.value("SELECT 1") == 1


async def test_a_query_whose_client_leaves_gives_its_place_back(tmp_path: Path) -> None:
    async with open_asking(tmp_path) as asking:
        for _ in range(3):
            with trio.move_on_after(0.2):
                await asking.bytes(ENDLESS)
        assert asking.queries.statistics()["running"] == 0
        assert await asking.value("SELECT 1") == 1


async def test_an_answer_that_nobody_reads_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries_module, "CLIENT_SECONDS_MAX", 0.0)
    monkeypatch.setattr(queries_module, "_WATCH_EVERY_S", 0.01)
    async with open_asking(tmp_path, with_spare=True) as asking:
        answer = await asking.queries.ask("SELECT repeat('x', 100) FROM range(1000000)", "csv")
        await answer.receive()
        await eventually(lambda: not asking.queries._open)
        with pytest.raises(QueryCut):
            await rest_of(answer)


async def test_a_crash_of_the_process_is_told_and_harms_nothing(tmp_path: Path) -> None:
    async with open_asking(tmp_path) as asking:
        await _crash_before(asking)
        answer = await asking.queries.ask("SELECT repeat('x', 100) FROM range(1000000)", "csv")
        assert await answer.receive()
        process = answer._process
        assert process is not None
        os.kill(process.pid, signal.SIGSEGV)
        with pytest.raises(QueryCut, match="ended"):
            await rest_of(answer)
        await answer.aclose()
        assert await asking.value("SELECT count(*) FROM requests") == 3


async def rest_of(answer: Answer) -> None:
    while await answer.receive():
        pass


async def eventually(happened: Callable[[], object]) -> None:
    while not happened():  # noqa: ASYNC110 - there is nothing to wait for
        await trio.sleep(0.01)


async def spare_of(asking: Asking) -> QueryProcess:
    await eventually(lambda: asking.queries._spare)
    assert asking.queries._spare is not None
    return asking.queries._spare


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def _crash_before(asking: Asking) -> None:
    start = QueryProcess.start

    async def dying() -> QueryProcess:
        process = await start()
        process.kill()
        return process

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QueryProcess, "start", dying)
        with pytest.raises(QueryRefused, match="ended its process"):
            await asking.bytes("SELECT 1")
    assert asking.queries.counters.crashed == 1


async def test_a_spare_process_is_kept_and_replaced(tmp_path: Path) -> None:
    async with open_asking(tmp_path, with_spare=True) as asking:
        pids: set[int] = set()
        for _ in range(3):
            pids.add((await spare_of(asking)).pid)
            assert await asking.value("SELECT 1") == 1
        assert len(pids) == 3
        last = await spare_of(asking)
        os.kill(last.pid, signal.SIGKILL)
        await eventually(lambda: not last.is_alive)
        assert await asking.value("SELECT 1") == 1
    assert not is_running(last.pid)


async def test_a_query_sees_what_was_queryable_when_it_was_asked(tmp_path: Path) -> None:
    async with open_asking(tmp_path) as asking:
        for number in range(10, 16):
            add_events(asking.store, number, number)
            found = await asking.rows(
                "SELECT account_id, count(*) FROM events GROUP BY 1 ORDER BY 1"
            )
            assert found[:-1] == [[f"a{n}", n] for n in range(10, number + 1)]
            assert found[-1] == ["a2", 5]
