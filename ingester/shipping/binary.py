"""`python -m ingester.shipping.binary FILE`: the program, its interpreter and its data as one file.

PyInstaller gathers interpreter, modules and libraries in a folder; what nothing here uses is left
out; the folder follows `launcher.sh` as a gzip'd tar. Why not PyInstaller's own one-file mode: it
unpacks 230 MB at every start, a second of each `ingester query`, and into memory where /tmp is. The
launcher unpacks once a version.

The file runs on Linux with a C library no older than that of the machine that built it.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import ingester

__all__ = ["build", "packed"]

# Of Arrow we use arrays, compute and Parquet; of the rest nothing is loaded.
_LEFT_OUT = (
    "pyarrow/libarrow_flight*",
    "pyarrow/libarrow_s3*",
    "pyarrow/libarrow_python_flight*",
    "pyarrow/libarrow_python_parquet_encryption*",
    "pyarrow/_flight*",
    "pyarrow/_substrait*",
    "pyarrow/_s3fs*",
    "pyarrow/_gcsfs*",
    "pyarrow/_azurefs*",
    "pyarrow/_hdfs*",
    "pyarrow/_orc*",
    "pyarrow/_feather*",
    "pyarrow/_parquet_encryption*",
    "pyarrow/_dataset_parquet_encryption*",
    "pyarrow/include",
    "pyarrow/tests",
    "pyarrow/src",
)
_NOT_IMPORTED = (
    "tkinter",
    "pyarrow.tests",
    "pyarrow.flight",
    "numpy.f2py",
    "numpy.testing",
    "pytest",
)
_PACKAGE_DATA = ("ingester", "quart", "werkzeug")
_LEVEL = 6  # 9 is 1 % smaller and takes five times as long


def build(output: Path) -> Counter[str]:
    """Make the file; bytes by dependency, unpacked."""
    with tempfile.TemporaryDirectory(prefix="ingester-binary-") as scratch:
        folder = _gathered(Path(scratch))
        for pattern in _LEFT_OUT:
            for path in (folder / "_internal").glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        _strip(folder)
        sizes = _sizes(folder)
        output.parent.mkdir(parents=True, exist_ok=True)
        packed(folder, output)
    return sizes


def packed(folder: Path, output: Path) -> None:
    """Write `folder`, which holds the program `ingester`, behind the launcher as `output`."""
    archive = output.with_name(output.name + ".tar.gz")
    with (
        open(archive, "wb") as raw,
        gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as packer,
        tarfile.open(fileobj=packer, mode="w") as tar,
    ):
        for path in sorted(folder.rglob("*")):
            tar.add(path, path.relative_to(folder), recursive=False, filter=_plain)
    with open(archive, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    text = (files(__package__) / "launcher.sh").read_text(encoding="utf-8")
    text = text.replace("@VERSION@", ingester.__version__).replace("@DIGEST@", digest)
    partial = output.with_name(output.name + ".partial")
    with open(partial, "wb") as file, open(archive, "rb") as payload:
        file.write(_with_offset(text))
        shutil.copyfileobj(payload, file)
    archive.unlink()
    partial.chmod(0o755)
    partial.replace(output)


def _with_offset(text: str) -> bytes:
    """The launcher with the place of the first byte behind it, from 1, as `tail -c` counts."""
    length = len(text.replace("@OFFSET@", "").encode())
    offset = length + 1
    while len(str(offset)) + length + 1 != offset:
        offset = len(str(offset)) + length + 1
    return text.replace("@OFFSET@", str(offset)).encode()


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same bytes whoever built it, and when."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    return member


def _gathered(scratch: Path) -> Path:
    entry = str(files(__package__) / "entry.py")
    command = [
        *(sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level", "WARN"),
        *("--onedir", "--name", "ingester"),
        *("--distpath", str(scratch / "dist"), "--workpath", str(scratch / "work")),
        *("--specpath", str(scratch), "--collect-submodules", "ingester"),
        *(part for name in _PACKAGE_DATA for part in ("--collect-data", name)),
        *("--copy-metadata", "duckdb"),
        *(part for name in _NOT_IMPORTED for part in ("--exclude-module", name)),
        entry,
    ]
    subprocess.run(command, check=True)
    return scratch / "dist" / "ingester"


def _strip(folder: Path) -> None:
    """Symbols for debuggers are 70 MB. Not of numpy's own libraries, which do not load then."""
    program = shutil.which("strip")
    if program is None:
        return
    for path in folder.rglob("*.so*"):
        if path.is_file() and not path.is_symlink() and "numpy.libs" not in path.parts:
            subprocess.run([program, "--strip-unneeded", str(path)], check=True)


def _sizes(folder: Path) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            parts = path.relative_to(folder).parts
            name = parts[1] if len(parts) > 1 else parts[0]
            sizes[name.split(".")[0].lstrip("_")] += path.stat().st_size
    return sizes


def _lines(output: Path, sizes: Counter[str]) -> Iterator[str]:
    for name, size in sizes.most_common(12):
        yield f"{size / 1e6:8.1f} MB  {name}"
    yield f"{sum(sizes.values()) / 1e6:8.1f} MB  unpacked"
    yield f"{output.stat().st_size / 1e6:8.1f} MB  {output}"
    for what in ("first start, unpacks", "later start"):
        began = time.perf_counter()
        subprocess.run([str(output), "--version"], check=True, stdout=subprocess.DEVNULL)
        yield f"{time.perf_counter() - began:8.2f} s   --version, {what}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ingester.shipping.binary", description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=Path("dist/ingester"))
    output: Path = parser.parse_args().file.absolute()
    sizes = build(output)
    sys.stdout.write("\n".join(_lines(output, sizes)) + "\n")


if __name__ == "__main__":
    main()
