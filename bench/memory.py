"""Peak memory of the server: during one very long upload, and with many uploads at once.

The long upload is one continuous compressed stream, chunked, made on the way by the client. The
kernel's high-water mark is read and reset after every GB raw, so each step has a peak of its own
and a slow leak shows as a slope. Limits asked for: 512 MB, flat from 1 GB on.
"""

from __future__ import annotations

from bench.client import bulk_client
from bench.client_bulk import BulkDone, Progress
from bench.corpus import Corpus, Encoding, synthetic_corpus
from bench.options import Options
from bench.process import cpu_seconds, memory_mb, reset_peak_memory
from bench.report import Row, note
from bench.server import Server, run_server

__all__ = ["run"]

_BLOCK_EVENTS = 200_000  # about 69 MB: far beyond any compressor's window
_PARALLEL_EVENTS = 100_000
_SMOKE_EVENTS = 5_000


def run(options: Options) -> list[Row]:
    """One row for the long upload, one for many uploads at once."""
    encoding: Encoding = "gzip" if "gzip" in options.encodings else options.encodings[0]
    block = synthetic_corpus(_SMOKE_EVENTS if options.smoke else _BLOCK_EVENTS)
    raw_bytes = 20_000_000 if options.smoke else int(options.gigabytes * 1e9)
    with run_server() as server:
        long_row = _long_upload(server, block, encoding, raw_bytes)
    part = synthetic_corpus(_SMOKE_EVENTS if options.smoke else _PARALLEL_EVENTS)
    uploads = min(options.uploads, 8) if options.smoke else options.uploads
    with run_server() as server:
        return [long_row, _many_uploads(server, part, encoding, uploads)]


def _long_upload(server: Server, block: Corpus, encoding: Encoding, raw_bytes: int) -> Row:
    copies = -(-raw_bytes // block.raw_bytes)  # whole copies, so the count is exact
    expected = copies * block.events
    peaks: list[float] = []
    cpu_before = cpu_seconds(server.pid)
    reset_peak_memory(server.pid)
    with bulk_client(
        server, block.plain, encoding=encoding, stream_bytes=copies * block.raw_bytes
    ) as client:
        client.go()
        for event in client.events():
            peaks.append(memory_mb(server.pid))
            reset_peak_memory(server.pid)
            if isinstance(event, Progress):
                note(f"memory {event.raw_bytes / 1e9:.0f} GB: peak {peaks[-1]:.0f} MB")
            else:
                done = event
    cpu_s = cpu_seconds(server.pid) - cpu_before
    assert (done.status, done.accepted) == (200, expected), done
    count = server.wait_count(expected)
    assert count == expected, f"{count} events stored of {expected}"
    return Row(
        bench="memory",
        name=f"one upload {done.raw_bytes / 1e9:.2f} GB raw, {encoding}",
        events=expected,
        raw_bytes=done.raw_bytes,
        seconds=done.seconds,
        cpu_s=cpu_s,
        client_cpu_s=done.cpu_s,
        peak_rss_mb=max(peaks),
        extra={"peak_mb_by_gb": [round(peak) for peak in peaks]},
    )


def _many_uploads(server: Server, part: Corpus, encoding: Encoding, uploads: int) -> Row:
    cpu_before = cpu_seconds(server.pid)
    reset_peak_memory(server.pid)
    with bulk_client(server, part.path(encoding), encoding=encoding, parallel=uploads) as client:
        client.go()
        done = [event for event in client.events() if isinstance(event, BulkDone)]
    cpu_s = cpu_seconds(server.pid) - cpu_before
    peak_rss_mb = memory_mb(server.pid)
    statuses = sorted({one.status for one in done})
    assert statuses == [200], statuses
    assert len(done) == uploads, f"{len(done)} answers to {uploads} uploads"
    expected = uploads * part.events
    count = server.wait_count(expected)
    assert count == expected, f"{count} events stored of {expected}"
    return Row(
        bench="memory",
        name=f"{uploads} uploads at once, {part.raw_bytes / 1e6:.0f} MB raw each, {encoding}",
        events=expected,
        raw_bytes=uploads * part.raw_bytes,
        seconds=max(one.seconds for one in done),
        cpu_s=cpu_s,
        client_cpu_s=max(one.cpu_s for one in done),
        peak_rss_mb=peak_rss_mb,
    )
