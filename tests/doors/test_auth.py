"""Bearer keys: the header, whose key it is, what is refused, and what an attempt costs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from ingester.doors.auth import authenticate, bearer_key, credential_nowait, refusal_response
from ingester.errors import Unauthorized
from ingester.messages import Credential
from ingester.store.control import key_digest
from tests.doors.rig import Rig, head_of, open_rig

KEY = "ingl_" + "k" * 28
TOKEN = Credential(
    kind="token", id="tok_1", service="web", environment="prod", scopes=frozenset({"ingest"})
)
READER = Credential(kind="token", id="tok_2", scopes=frozenset({"read"}))
CONNECTION = Credential(kind="connection", id="con_1", scopes=frozenset({"ingest"}))


def with_keys(rig: Rig, *, until: float | None = None) -> None:
    rig.admission.keys.replace(
        {},
        {
            key_digest(KEY): (TOKEN, until),
            key_digest("reader"): (READER, None),
            key_digest("metrics"): (CONNECTION, None),
        },
    )


async def ask(rig: Rig, *values: bytes, path: str = "/ingest/shop") -> Credential:
    headers = [(b"authorization", value) for value in values]
    request = rig.request(b"", head_of(path, headers=headers))
    return await authenticate(request, rig.admission, kinds=("token",))


@pytest.mark.parametrize(
    "value",
    [
        f"Bearer {KEY}",
        f"bearer {KEY}",
        f"BEARER   {KEY}  ",
        f"  Bearer {KEY}",
        f"Bearer\t{KEY}",
    ],
)
def test_case_and_blanks_are_tolerated(value: str) -> None:
    assert bearer_key(value.encode()) == KEY


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "no Authorization header"),
        (b"", "another scheme"),
        (b"Basic dXNlcjpwYXNz", "another scheme"),
        (KEY.encode(), "another scheme"),
        (b"Bearer", "no key"),
        (b"Bearer   ", "no key"),
        (b"Bearer a b", "one word"),
        ("Bearer kläy".encode(), "one word"),
        (b"Bearer a\x00b", "one word"),
        (b"Bearer " + b"k" * 513, "one word"),
        (b"Bearer:" + KEY.encode(), "another scheme"),
    ],
)
def test_a_malformed_header_is_told_what_was_expected_and_not_repeated(
    value: bytes | None, said: str
) -> None:
    with pytest.raises(Unauthorized, match=said) as caught:
        bearer_key(value)
    assert "Authorization: Bearer <key>" in str(caught.value)
    assert KEY not in str(caught.value)
    assert "dXNlcjpwYXNz" not in str(caught.value)


async def test_a_valid_key_gives_its_credential(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        with_keys(rig)
        assert await ask(rig, b"bearer " + KEY.encode()) == TOKEN
        assert not rig.admission.usage.is_changed


@pytest.mark.parametrize(
    ("values", "status", "said", "whose"),
    [
        ((), 401, "no Authorization", ""),
        ((b"Bearer unknown",), 401, "unknown, was revoked, or has expired", ""),
        ((b"Bearer metrics",), 401, "another door", "con_1"),
        ((b"Bearer reader",), 403, "lacks the scope ingest", "tok_2"),
        ((b"Bearer " + KEY.encode(),) * 2, 401, "more than one", ""),
    ],
)
async def test_a_refusal_has_its_status_and_is_noted_without_a_key(
    tmp_path: Path, values: tuple[bytes, ...], status: int, said: str, whose: str
) -> None:
    async with open_rig(tmp_path) as rig:
        with_keys(rig)
        with pytest.raises(Unauthorized, match=said) as caught:
            await ask(rig, *values, path=f"/ingest/{KEY}")
        response = refusal_response(caught.value)
        assert response.status == status
        assert dict(response.headers)[b"WWW-Authenticate"].startswith(b"Bearer")
        (note,) = rig.admission.usage.take_changes().refused
        assert (note.status, note.credential, note.address) == (status, whose, "192.0.2.1")
        assert KEY not in note.path + note.reason + response.body.decode()


async def test_an_expired_key_is_refused_from_its_second_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_rig(tmp_path) as rig:
        now = time.time()
        with_keys(rig, until=now + 10)
        assert await ask(rig, b"Bearer " + KEY.encode()) == TOKEN
        monkeypatch.setattr(time, "time", lambda: now + 10)
        with pytest.raises(Unauthorized, match="expired"):
            await ask(rig, b"Bearer " + KEY.encode())


async def test_a_shortcut_gets_only_what_would_pass_and_does_not_end(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        with_keys(rig)
        keys = rig.admission.keys

        def found(value: bytes) -> Credential | None:
            head = head_of("/x", headers=[(b"authorization", value)])
            return credential_nowait(head, keys, kinds=("token",))

        assert found(b"Bearer " + KEY.encode()) == TOKEN
        assert found(b"Bearer reader") is None
        assert found(b"Bearer unknown") is None
        assert found(b"nonsense") is None


async def test_wrong_keys_are_slowed_and_a_valid_one_never(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    mock_clock.autojump_threshold = 0.01
    async with open_rig(tmp_path) as rig:
        with_keys(rig)
        waits = []
        for _ in range(12):
            began = trio.current_time()
            with pytest.raises(Unauthorized):
                await ask(rig, b"Bearer wrong")
            waits.append(trio.current_time() - began)
            began = trio.current_time()
            assert await ask(rig, b"Bearer " + KEY.encode()) == TOKEN
            assert trio.current_time() == began
        assert waits[:3] == [0, 0, 0]
        assert waits == sorted(waits)
        assert waits[-1] == pytest.approx(2.0)
        # No header is no guess.
        began = trio.current_time()
        with pytest.raises(Unauthorized):
            await ask(rig)
        assert trio.current_time() == began


async def test_an_unknown_pair_is_slowed_and_noted_and_a_known_one_is_not(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    mock_clock.autojump_threshold = 0.01
    async with open_rig(tmp_path) as rig:
        began = trio.current_time()
        for _ in range(10):
            answer = await rig.ask(b"{}", path="/v1/guessed/secretpair")
            assert (answer.status, answer.body) == (400, b"")
        assert trio.current_time() - began > 5
        began = trio.current_time()
        assert (await rig.ask(b"{}")).status == 200
        assert trio.current_time() == began
        changes = rig.admission.usage.take_changes()
        assert {note.path for note in changes.refused} == {"/v1/***/***"}
        assert [change.credential for change in changes.changes] == ["source:1"]
