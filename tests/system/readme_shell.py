"""Blocks of the README, and a shell that runs them with `ingester` answered by this process.

Why: there are some sixty commands in the README, and each process of its own would take half a
second to start. In this shell `ingester` is a function that asks a server in the test; everything
else (pipes, `curl`, redirections, exit codes) is the shell's.
"""

from __future__ import annotations

import http.server
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path

from click.testing import CliRunner

from ingester.cli import main
from tests.system.server import REPOSITORY

__all__ = ["Shell", "blocks", "open_shell"]

_FUNCTION = """
ingester() {
    printf '%s\\0' "$@" | curl -sS --fail-with-body --data-binary @- -H "Folder: $PWD" "$_INGESTER"
}
sudo() { "$@"; }
"""


def blocks(language: str) -> dict[tuple[str, int], str]:
    """By section and number within it."""
    found: dict[tuple[str, int], str] = {}
    section = ""
    text = (REPOSITORY / "README.md").read_text("utf-8")
    for match in re.finditer(
        r"^##+ ([^\n]*)\n|^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL
    ):
        if match[1] is not None:
            section = match[1]
        elif match[2] == language:
            number = sum(key[0] == section for key in found)
            found[section, number] = match[3]
    return found


class Shell:
    """Runs scripts in `folder`; `settings` are the environment of `ingester`."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self._settings = settings
        self.url = ""

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", _FUNCTION + script],
            cwd=self.folder,
            env={**os.environ, "_INGESTER": self.url},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def command(self, folder: str, arguments: list[str]) -> tuple[int, bytes]:
        """One `ingester` command: its exit code, what it printed."""
        unset: Mapping[str, str | None] = {
            name: None for name in os.environ if name.startswith("INGESTER_")
        }
        with chdir(folder):
            done = CliRunner().invoke(
                main,
                arguments,
                env={**unset, **self._settings},
                prog_name="ingester",
            )
        return done.exit_code, done.output_bytes


@contextmanager
def open_shell(folder: Path, settings: Mapping[str, str]) -> Iterator[Shell]:
    shell = Shell(folder, settings)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            arguments = [part.decode() for part in body.split(b"\0")[:-1]]
            code, output = shell.command(self.headers["Folder"], arguments)
            self.send_response(200 if code == 0 else 500)
            self.send_header("Content-Length", str(len(output)))
            self.end_headers()
            self.wfile.write(output)

        def log_message(self, *_: object) -> None:
            return

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        shell.url = f"http://127.0.0.1:{server.server_port}/"
        try:
            yield shell
        finally:
            server.shutdown()
            thread.join()
