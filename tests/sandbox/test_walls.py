"""What stands behind the allow-list: the same attacks in a process that lacks it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingester import executable
from tests.sandbox.asking import open_asking
from tests.sandbox.test_attacks import filled, refusal

_WITHOUT_THE_LIST = (
    "import sys; sys.path[:] = sys.argv[1:]; from ingester.sandbox import child;"
    " child.refuse_unless_allowed = lambda *_, **__: None; child.main()"
)

REFUSED = [
    "SELECT content FROM read_blob('{part}')",
    "SELECT * FROM read_blob('{folder}/**')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_csv('/proc/self/environ')",
    "SELECT * FROM read_csv('/proc/self/maps', header := false, columns := {'a': 'VARCHAR'})",
    "FROM '/etc/passwd'",
    "FROM read_duckdb('{part}')",
    "FROM query('SELECT * FROM read_text(''/etc/passwd'')')",
    "FROM query_table('/etc/passwd')",
    "FROM json_execute_serialized_sql(json_serialize_sql('FROM read_text(''/etc/passwd'')'))",
    "FROM 'https://example.org/x.csv'",
    "FROM 's3://bucket/x.parquet'",
    "FROM python_map_function()",
    "FROM sniff_csv('/etc/passwd')",
    "FROM glob('{folder}/*/*')",
    "FROM glob('/etc/*')",
    "SELECT getenv('PATH')",
    "FROM duckdb_secrets()",
]
# Taken, and of no use: the tables behind the views are empty.
FRUITLESS = [
    "SELECT count(*) FROM base.events",
    "SELECT count(*) FROM base.requests",
]


@pytest.fixture(autouse=True)
def without_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executable, "_PROGRAM", _WITHOUT_THE_LIST)


async def test_no_file_is_read_without_the_allow_list_either(tmp_path: Path) -> None:
    async with open_asking(tmp_path, with_spare=True) as asking:
        assert await asking.value("SELECT count(*) FROM pragma_version()") == 1, "the list is gone"
        await asking.value("SELECT count(*) FROM events")  # so that there are exported rows
        asking.store.checkpoint()
        before, files = asking.digest(), asking.files()
        for sql in REFUSED:
            error = await refusal(asking, filled(sql, asking))
            assert "root:" not in str(error)
        assert asking.digest() == before
        assert asking.files() == files


async def test_nothing_is_gained_without_the_allow_list(tmp_path: Path) -> None:
    async with open_asking(tmp_path, with_spare=True) as asking:
        for sql in FRUITLESS:
            assert await asking.value(sql) == 0, sql
