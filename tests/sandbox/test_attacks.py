"""SQL that means harm: refused in a plain sentence, nothing is changed, intake goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingester.errors import RequestError
from ingester.sandbox.messages import QueryRefused, QueryTimeout
from tests.sandbox.asking import Asking, Intake, open_asking
from tests.sandbox.attacks import (
    DISGUISED,
    ENDLESS,
    EXPENSIVE,
    HARMLESS,
    KINDS,
    NESTED,
    REFUSED,
)
from tests.store.stores import load


def filled(sql: str, asking: Asking) -> str:
    paths = {
        "{folder}": asking.folder,
        "{part}": asking.folder / "open/000001.duckdb",
        "{export}": next((asking.folder / "export").glob("*.parquet")),
    }
    for name, path in paths.items():
        sql = sql.replace(name, str(path))
    return sql


async def refusal(asking: Asking, sql: str) -> RequestError:
    try:
        rows = await asking.bytes(sql)
    except RequestError as error:
        return error
    raise AssertionError(f"taken: {sql[:200]} -> {rows[:200]!r}")


def assert_plain(error: object, sql: str, folder: Path) -> None:
    """A refusal that says what is wrong and nothing about us."""
    assert isinstance(error, QueryRefused), (sql, error)
    sentence = str(error)
    assert error.column is None or 1 <= error.column <= len(sql) + 1, (sql, error.column)
    # What the client wrote itself may be repeated.
    assert str(folder) in sql or str(folder) not in sentence, (sql, sentence)
    assert "Traceback" not in sentence
    assert "process" not in sentence, (sql, sentence)
    assert "\n" not in sentence
    assert len(sentence) <= 600


@pytest.mark.parametrize("attacks", [REFUSED, DISGUISED], ids=["plain", "disguised"])
async def test_none_of_them_is_taken_or_changes_anything(
    tmp_path: Path, attacks: list[str]
) -> None:
    async with open_asking(tmp_path) as asking:
        assert await asking.value("SELECT count(*) FROM requests") == 3
        assert await asking.value("SELECT count(*) FROM events") == 5
        asking.store.checkpoint()
        before, files = asking.digest(), asking.files()
        texts = [filled(sql, asking) for sql in attacks]
        control = "SELECT count(*) FROM requests"
        # The control behind each tells a refusal from a process that answers nothing any more.
        answers = await asking.each([text for sql in texts for text in (sql, control)])
        assert len(answers) == 2 * len(texts)
        for sql, answer, after in zip(texts, answers[::2], answers[1::2], strict=True):
            assert_plain(answer, sql, tmp_path)
            assert isinstance(after, bytes), (sql, after)
            assert json.loads(after)["rows"] == [[3]], sql
        assert asking.digest() == before
        assert asking.files() == files


async def test_one_of_each_kind_is_refused_by_the_server_which_goes_on(tmp_path: Path) -> None:
    async with open_asking(tmp_path, with_spare=True) as asking:
        assert await asking.value("SELECT count(*) FROM requests") == 3
        assert await asking.value("SELECT count(*) FROM events") == 5
        asking.store.checkpoint()
        before, files = asking.digest(), asking.files()
        for kind, attack in KINDS.items():
            assert attack in REFUSED + DISGUISED, kind
            sql = filled(attack, asking)
            assert_plain(await refusal(asking, sql), sql, tmp_path)
        assert asking.digest() == before
        assert asking.files() == files
        load(asking.store, 50)
        assert await asking.value("SELECT count(*) FROM requests") == 4


async def test_what_only_looks_like_an_attack_is_taken(tmp_path: Path) -> None:
    async with open_asking(tmp_path) as asking:
        answers = await asking.each([sql for sql, _ in HARMLESS])
    for (sql, count), answer in zip(HARMLESS, answers, strict=True):
        assert isinstance(answer, bytes), (sql, answer)
        assert len(json.loads(answer)["rows"]) == count, sql


@pytest.mark.parametrize("sql", EXPENSIVE)
async def test_memory_is_bounded(tmp_path: Path, sql: str) -> None:
    settings = {"query_memory_bytes_max": 64 * 1024**2, "query_seconds_max": 6}
    async with open_asking(tmp_path, **settings) as asking:
        with Intake(asking.store) as intake:
            error = await refusal(asking, sql)
        assert isinstance(error, QueryRefused | QueryTimeout)
        assert len(str(error)) <= 600
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
