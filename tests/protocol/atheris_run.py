"""`fuzzed.check` under atheris: `python -m tests.protocol.atheris_run CORPUS -max_total_time=60`.

A process of its own, as libFuzzer ends the one it runs in. The corpus begins with `samples`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ingester.protocol"]):
    from tests.protocol.fuzzed import check, samples

__all__: list[str] = []

if __name__ == "__main__":
    corpus = Path(sys.argv[1])
    for number, sample in enumerate(samples()):
        (corpus / f"sample{number}").write_bytes(sample)
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
