"""SQL that means harm: refused in a plain sentence, nothing is changed, intake goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingester.errors import RequestError
from ingester.sandbox.messages import QueryRefused, QueryTimeout
from tests.sandbox.asking import Asking, Intake, open_asking
from tests.sandbox.attacks import ENDLESS, EXPENSIVE, NESTED, REFUSED
from tests.store.stores import load


def filled(sql: str, asking: Asking) -> str:
    return sql.format(
        folder=asking.folder,
        part=asking.folder / "open/000001.duckdb",
        export=next((asking.folder / "export").glob("*.parquet")),
        upload=asking.folder / "uploads",
    )


async def refusal(asking: Asking, sql: str) -> RequestError:
    try:
        rows = await asking.bytes(sql)
    except RequestError as error:
        return error
    raise AssertionError(f"taken: {sql[:200]} -> {rows[:200]!r}")


@pytest.mark.parametrize("first", range(0, len(REFUSED), 15))
async def test_none_of_them_is_taken_or_changes_anything(tmp_path: Path, first: int) -> None:
    async with open_asking(tmp_path, with_spare=True) as asking:
        assert await asking.value("SELECT count(*) FROM requests") == 3
        asking.store.checkpoint()
        before = asking.digest()
        files = asking.files()
        for sql in REFUSED[first : first + 15]:
            sql = filled(sql, asking)
            error = await refusal(asking, sql)
            sentence = str(error)
            assert isinstance(error, QueryRefused), (sql, sentence)
            assert error.column is None or 1 <= error.column <= len(sql) + 1, (sql, error.column)
            # What the client wrote itself may be repeated.
            assert str(tmp_path) in sql or str(tmp_path) not in sentence, (sql, sentence)
            assert "Traceback" not in sentence
            assert "process" not in sentence, (sql, sentence)
            assert "\n" not in sentence
        assert asking.digest() == before
        assert asking.files() == files
        load(asking.store, 50)
        assert await asking.value("SELECT count(*) FROM requests") == 4


@pytest.mark.parametrize("sql", EXPENSIVE)
async def test_memory_is_bounded(tmp_path: Path, sql: str) -> None:
    settings = {"query_memory_bytes_max": 64 * 1024**2, "query_seconds_max": 10}
    async with open_asking(tmp_path, **settings) as asking:
        with Intake(asking.store) as intake:
            error = await refusal(asking, sql)
        assert isinstance(error, QueryRefused | QueryTimeout)
        assert intake.count > 0
        assert asking.stored() == 3 + intake.count
        assert await asking.value("SELECT count(*) FROM requests") == 3 + intake.count


@pytest.mark.parametrize("sql", ENDLESS)
async def test_what_has_no_end_is_ended(tmp_path: Path, sql: str) -> None:
    async with open_asking(tmp_path, query_seconds_max=1) as asking:
        with (
            Intake(asking.store) as intake,
            pytest.raises((QueryTimeout, QueryRefused)) as caught,
        ):
            await asking.bytes(sql)
        if isinstance(caught.value, QueryTimeout):
            assert "longer than 1 s" in str(caught.value)
        assert intake.count > 0
        asking.settings["query_seconds_max"] = 20
        assert await asking.value("SELECT count(*) FROM requests") == 3 + intake.count


@pytest.mark.parametrize("number", range(len(NESTED)))
async def test_a_monstrous_text_is_answered(tmp_path: Path, number: int) -> None:
    async with open_asking(tmp_path) as asking:
        try:
            await asking.bytes(NESTED[number])
        except (QueryRefused, QueryTimeout) as error:
            assert len(str(error)) < 500  # noqa: PT017
        assert await asking.value("SELECT count(*) FROM requests") == 3
