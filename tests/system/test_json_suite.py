"""Every file of the JSON test suite as a line: no crash, a clear outcome, and it inserts.

Each file is sent twice: as it is (it is no event, so it must be refused with a reason of the
closed list), and as the value of an extra property of a valid event (`y_` must be taken, `n_`
refused, `i_` may be either). A line end inside a file would split the line, so it is replaced by
a carriage return, which is white space outside strings and forbidden inside them, as a line end
is: the file stays what its name says.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingester.messages import REJECT_REASONS
from tests.system.client import Answer, Connection
from tests.system.server import Server, SourceKeys, running

_ARCHIVE = Path(__file__).parents[1] / "data" / "json-test-suite.tar.gz"
_EVENT = b'{"accountId":"suite-%d","userId":"u","action":"a","sessionId":"%b","createdAt":1,"x":%b}'


def _files() -> dict[str, bytes]:
    with tarfile.open(_ARCHIVE) as archive:
        found: dict[str, bytes] = {}
        for member in archive.getmembers():
            name = Path(member.name).stem
            reader = archive.extractfile(member) if member.isfile() else None
            if reader is not None and name[:2] in {"y_", "n_", "i_"}:
                found[name] = reader.read()
    return dict(sorted(found.items()))


_FILES = _files()
_NUMBERS = {name: number for number, name in enumerate(_FILES)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("suite")) as server:
        yield server
        assert server.stop() == 0
    assert "Traceback" not in server.log_text()


def _embedded(name: str, run: bytes) -> bytes:
    """The file as the value of `x`; one line."""
    text = _FILES[name].removesuffix(b"\n").replace(b"\n", b"\r")
    return _EVENT % (_NUMBERS[name], run, text)


def _refuse_constant(text: str) -> Any:
    raise ValueError(text)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _rejects(server: Server, source: str) -> list[dict[str, Any]]:
    return server.query(
        "SELECT request_id, line_number, reason, detail, hex(line) AS line "
        f"FROM rejects WHERE source = '{source}' ORDER BY request_id, line_number"
    )


def test_the_suite_is_whole_and_stays_what_its_names_say() -> None:
    assert len(_FILES) == 318
    for name in _FILES:
        if not name.startswith("i_"):
            assert _is_json(_embedded(name, b"s")) == name.startswith("y_"), name


def _post_each(server: Server, keys: SourceKeys, lines: dict[str, bytes]) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    with Connection(server.address) as connection:
        for name, line in lines.items():
            answers[name] = connection.post(keys.path, line)
            assert (answers[name].status, answers[name].body) == (200, b""), name
    server.settle(keys)
    return answers


def test_every_file_as_a_line_is_refused_with_a_reason(server: Server) -> None:
    keys = server.create_source("bare")
    answers = _post_each(server, keys, _FILES)
    reasons: dict[str, list[dict[str, Any]]] = {}
    for reject in _rejects(server, keys.name):
        reasons.setdefault(reject["request_id"], []).append(reject)
    for name, text in _FILES.items():
        answer = answers[name]
        lines = [line for line in text.split(b"\n") if line.strip(b" \t\r")]
        assert answer.accepted == 0, name
        found = reasons.get(answer.request_id, [])
        assert len(found) == answer.rejected, name
        assert all(reject["reason"] in REJECT_REASONS for reject in found), (name, found)
        if name == "n_structure_UTF8_BOM_no_data":
            assert answer.rejected <= 1  # a mark and nothing else: blank, or not JSON
            continue
        assert answer.rejected == len(lines), name
        if len(lines) == 1:
            assert bytes.fromhex(found[0]["line"]).strip() == _kept(lines[0])
        if name.startswith("y_") and len(lines) == 1:
            expected = "missing_field" if isinstance(json.loads(text), dict) else "not_an_object"
            assert found[0]["reason"] == expected, (name, found)


def _kept(line: bytes) -> bytes:
    """What a reject keeps of a line: no byte order mark, no blanks around, cut at 64 KiB."""
    return line.removeprefix(b"\xef\xbb\xbf").strip()[: 64 * 1024]


def test_every_file_as_a_property_is_taken_or_refused_by_its_name(server: Server) -> None:
    keys = server.create_source("embedded")
    lines = {name: _embedded(name, b"one") for name in _FILES}
    answers = _post_each(server, keys, lines)
    accepted = {name for name in lines if answers[name].counts == (1, 0)}
    refused = {name for name in lines if answers[name].counts == (0, 1)}
    assert accepted | refused == set(lines)
    assert [n for n in lines if n.startswith("y_") and n not in accepted] == []
    assert [n for n in lines if n.startswith("n_") and n not in refused] == []
    print("i_ accepted:", sorted(n for n in accepted if n.startswith("i_")))
    print("i_ refused:", sorted(n for n in refused if n.startswith("i_")))
    _check_stored(server, keys, lines, accepted)
    rejects = _rejects(server, keys.name)
    assert sorted(r["request_id"] for r in rejects) == sorted(
        answers[name].request_id for name in refused
    )
    assert all(reject["reason"] in REJECT_REASONS for reject in rejects)


def _check_stored(
    server: Server, keys: SourceKeys, lines: dict[str, bytes], accepted: set[str]
) -> None:
    """Accepted lines are in the store as sent, and JSON functions work on each of them."""
    rows = server.query(
        "SELECT account_id, hex(encode(body::VARCHAR)) AS body, json_valid(body) AS valid, "
        "body->>'$.accountId' AS account, json_type(body, '$.x') AS kind "
        f"FROM events WHERE source = '{keys.name}' AND account_id LIKE 'suite-%'"
    )
    stored = {row["account_id"]: row for row in rows}
    assert len(stored) == len(rows) == len(accepted)
    for name in accepted:
        row = stored[f"suite-{_NUMBERS[name]}"]
        assert row["valid"] is True, name
        assert row["account"] == row["account_id"], name
        assert row["kind"] is not None, name
        assert bytes.fromhex(row["body"]) == lines[name], name


@pytest.mark.parametrize("copies", [1, 8])
def test_all_files_in_one_body_have_the_outcome_they_have_alone(
    server: Server, copies: int
) -> None:
    """One bad line never changes the fate of another, in the small lane and in bulk."""
    alone = server.create_source(f"alone-{copies}")
    answers = _post_each(server, alone, {name: _embedded(name, b"alone") for name in _FILES})
    keys = server.create_source(f"together-{copies}")
    lines = [_embedded(name, b"%d" % copy) for copy in range(copies) for name in _FILES]
    body = b"\n".join(lines) + b"\n"
    assert (len(body) > 1024 * 1024) == (copies > 1)
    with Connection(server.address) as connection:
        answer = connection.post(keys.path, body)
    assert answer.status == 200
    assert answer.accepted == copies * sum(a.accepted for a in answers.values())
    assert answer.rejected == copies * sum(a.rejected for a in answers.values())
    server.settle(keys)
    reasons = {r["request_id"]: r["reason"] for r in _rejects(server, alone.name)}
    expected = [reasons.get(answers[name].request_id) for _ in range(copies) for name in _FILES]
    found: list[str | None] = [None] * len(lines)
    for reject in _rejects(server, keys.name):
        found[reject["line_number"] - 1] = reject["reason"]
    names = list(_FILES) * copies
    differing = [
        (name, one, other)
        for name, one, other in zip(names, expected, found, strict=True)
        if one != other
    ]
    assert differing == []
    rows = server.query(
        "SELECT account_id, count(*) AS n FROM events "
        f"WHERE source = '{keys.name}' AND account_id LIKE 'suite-%' GROUP BY 1"
    )
    taken = {f"suite-{_NUMBERS[n]}" for n, a in answers.items() if a.accepted}
    assert {row["account_id"]: row["n"] for row in rows} == dict.fromkeys(taken, copies)
