"""Settings: the documented example, the order of sources, and errors that name what would work."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from ingester.config import Config
from ingester.config_check import split_address
from ingester.config_load import (
    SETTINGS,
    find_file,
    format_value,
    load,
    parse_bytes,
)
from ingester.errors import ConfigError

EXAMPLE = Path(__file__).parent.parent / "config.example.toml"

# A setting is commented out without a blank; prose has one.
_COMMENTED = re.compile(r"^#(?=[a-z_]+ = )", re.MULTILINE)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_example_documents_every_key_of_every_section_and_no_other() -> None:
    document = tomllib.loads(_COMMENTED.sub("", EXAMPLE.read_text(encoding="utf-8")))
    documented = [f"{section}.{key}" for section, table in document.items() for key in table]
    assert sorted(documented) == sorted(SETTINGS)
    assert documented == list(SETTINGS), "in the order of the structs"


def test_the_commented_values_of_the_example_are_the_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, _COMMENTED.sub("", EXAMPLE.read_text(encoding="utf-8")))
    loaded = load(path, {}, {})
    assert loaded.config == Config()
    assert set(loaded.origins.values()) == {str(path)}


def test_loading_the_example_as_it_is_gives_the_defaults() -> None:
    loaded = load(EXAMPLE, {}, {})
    assert loaded.config == Config()
    assert set(loaded.origins.values()) == {"default"}


def test_every_key_of_the_example_has_prose_before_it() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    keys_start_after_prose = [
        re.match(r"# |#[a-z_]+ = ", lines[number - 1]) is not None
        for number, line in enumerate(lines)
        if _COMMENTED.match(line)
    ]
    assert all(keys_start_after_prose)


def test_later_sources_win_and_origins_say_so(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[intake]\nbind = "127.0.0.1:1"\ntest_bind = "127.0.0.1:4"\n[store]\nthreads = 3\n',
    )
    env = {"INGESTER_INTAKE_BIND": "127.0.0.1:2", "INGESTER_STORE_THREADS": "2", "PATH": "/bin"}
    loaded = load(path, env, {"intake.bind": "127.0.0.1:3"})
    assert loaded.config.intake.bind == "127.0.0.1:3"
    assert loaded.config.store.threads == 2
    assert loaded.config.intake.test_bind == "127.0.0.1:4"
    assert loaded.origins["intake.bind"] == "command line"
    assert loaded.origins["store.threads"] == "environment INGESTER_STORE_THREADS"
    assert loaded.origins["intake.test_bind"] == str(path)
    assert loaded.origins["console.bind"] == "default"


def test_every_setting_can_be_set_by_its_variable() -> None:
    env = {}
    for setting in SETTINGS.values():
        if setting.type is int or (setting.type is str and not setting.key.startswith("tls_")):
            env[setting.variable] = str(setting.default)
        elif setting.type == tuple[str, ...]:
            env[setting.variable] = ""
    loaded = load(None, env, {})
    assert loaded.config == Config()
    assert sum(origin != "default" for origin in loaded.origins.values()) == len(env)


def test_lists_and_sizes_are_read_from_text() -> None:
    config = load(
        None,
        {
            "INGESTER_INTAKE_TRUSTED_PROXIES": "10.0.0.0/8, ::1/128,",
            "INGESTER_INTAKE_TEST_HOSTS": "Test.Example.com",
            "INGESTER_INTAKE_LINE_BYTES_MAX": "64MiB",
            "INGESTER_STORE_BATCH_ROWS_MAX": "65_000",
        },
        {"store.data_dir": "/tmp/x"},
    ).config
    assert config.intake.trusted_proxies == ("10.0.0.0/8", "::1/128")
    assert config.intake.test_hosts == ("test.example.com",)
    assert config.intake.line_bytes_max == 64 * 1024**2
    assert config.store.batch_rows_max == 65_000


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("64MiB", 64 * 1024**2),
        (" 1.5 GiB ", 3 * 1024**3 // 2),
        ("2kB", 2000),
        ("1gb", 10**9),
        ("7 B", 7),
        ("64 M", None),
        ("MiB", None),
        ("-1MiB", None),
        ("1e3", None),
        ("", None),
    ],
)
def test_sizes(text: str, size: int | None) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:0", ("::1", 0)),
        ("events.example.com:65535", ("events.example.com", 65535)),
        ("::1:8080", None),
        (":8080", None),
        ("localhost", None),
        ("localhost:", None),
        ("localhost:65536", None),
        ("localhost:-1", None),
        ("localhost:٣", None),
        ("[localhost]:1", None),
        ("a b:1", None),
    ],
)
def test_addresses(text: str, parts: tuple[str, int] | None) -> None:
    assert split_address(text) == parts


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ('[intake]\nbidn = "x:1"', "intake.bidn", "the nearest is intake.bind"),
        ('[intake]\ndata_dir = "x"', "intake.data_dir", "belongs under [store]"),
        ("[intke]\n", "[intke]", "the nearest is [intake]"),
        ('data_dir = "x"', "[data_dir]", "belongs under [store]"),
        ("intake = 3", "intake", "write [intake]"),
        ("[intake]\ndepth_max = true", "intake.depth_max", "a whole number such as 128"),
        ('[intake]\nline_bytes_max = "1 M"', "intake.line_bytes_max", '"64MiB"'),
        ("[intake]\nbind = 8080", "intake.bind", "127.0.0.1:8080"),
        ("[intake]\nbind = '8080'", "intake.bind", "must be host:port"),
        ("[intake]\ntest_bind = ':1'", "intake.test_bind", "0.0.0.0:8080"),
        ("[intake]\ntest_hosts = [1]", "intake.test_hosts", "a list of texts"),
        ("[intake]\ntest_hosts = ['http://a']", "intake.test_hosts", "without scheme"),
        ("[intake]\ntls_cert_file = 'a'", "intake.tls_key_file", "together with"),
        ("[console]\ntls_key_file = 'a'", "console.tls_cert_file", "or neither"),
        ("[intake]\ndepth_max = 0", "intake.depth_max", "from 1 to 512, got 0"),
        ("[store]\nthreads = -1", "store.threads", "whole number from 1"),
        ("[server]\ndrain_seconds_max = -1", "server.drain_seconds_max", "from 0 upwards"),
        ("[intake]\ntrusted_proxies = ['10.0.0.1/8']", "intake.trusted_proxies", "host bits"),
        ("[intake]\ncors_origins = ['app']", "intake.cors_origins", "https://app.example.com"),
        ("[intake]\npublic_url = 'events.com'", "intake.public_url", "https://events.example.com"),
        ("[console]\npublic_url = 'http://a:b'", "console.public_url", "must look like"),
        ("[log]\nlevel = 'loud'", "log.level", "debug, info, warning, error"),
        ("[store]\ndata_dir = ''", "store.data_dir", "a folder"),
        ("[intake]\ntarget_bytes_max = '1MiB'", "intake.target_bytes_max", "head_bytes_max"),
        ("[intake]\nbody_budget_bytes = 1000", "intake.body_budget_bytes", "one small body"),
    ],
)
def test_a_wrong_value_names_the_key_the_file_and_what_would_work(
    tmp_path: Path, text: str, key: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text), {}, {})
    assert caught.value.key == key
    assert hint in caught.value.hint
    if not key.endswith(("tls_key_file", "tls_cert_file")):
        assert "config.toml" in caught.value.hint


def test_tls_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    there = write(tmp_path, "")
    with pytest.raises(ConfigError, match="that can be read"):
        load(
            None,
            {},
            {"intake.tls_cert_file": str(there), "intake.tls_key_file": str(tmp_path / "no")},
        )


def test_an_unknown_variable_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="nearest is INGESTER_STORE_DATA_DIR"):
        load(None, {"INGESTER_DATA_DIR": "/x"}, {})
    load(None, {"INGESTER_CONFIG": "x", "INGESTER_AUTH_KEY": "k", "INGESTER_API_KEY": "k"}, {})


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(ConfigError, match="INGESTER_STORE_THREADS"):
        load(None, {"INGESTER_STORE_THREADS": "many"}, {})


def test_an_unreadable_or_broken_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "absent.toml", {}, {})
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(write(tmp_path, "[intake"), {}, {})
    broken = tmp_path / "latin.toml"
    broken.write_bytes(b"# \xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(broken, {}, {})


def test_links_and_origins_lose_a_trailing_slash() -> None:
    config = load(
        None,
        {},
        {
            "intake.public_url": "https://events.example.com/in/",
            "intake.cors_origins": ["https://a.example/", "*"],
        },
    ).config
    assert config.intake.public_url == "https://events.example.com/in"
    assert config.intake.cors_origins == ("https://a.example", "*")


def test_the_file_is_the_option_then_the_variable_then_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_file(None, {}) is None
    write(tmp_path, "")
    assert find_file(None, {}) == Path("config.toml")
    assert find_file(None, {"INGESTER_CONFIG": "b.toml"}) == Path("b.toml")
    assert find_file(Path("a.toml"), {"INGESTER_CONFIG": "b.toml"}) == Path("a.toml")


def test_formatted_values_load_as_the_same_values(tmp_path: Path) -> None:
    config = load(
        None,
        {},
        {
            "store.data_dir": 'a "b"\\ü\x7f',
            "intake.cors_origins": ["https://a.example", "*"],
            "intake.line_bytes_max": 1_048_577,
        },
    ).config
    text = ""
    for setting in SETTINGS.values():
        value = getattr(getattr(config, setting.section), setting.key)
        text += f"{setting.name} = {format_value(setting, value)}\n"
    assert load(write(tmp_path, text), {}, {}).config == config
    assert format_value(SETTINGS["intake.body_bytes_max"], 16 * 1024**3) == '"16GiB"'
