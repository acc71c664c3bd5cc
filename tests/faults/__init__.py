"""The fault programme of the write path: which fault is shown where.

F1, kill -9 at random: `system/test_kill.py`, `test_rollups.py`, `test_sealing.py`, against liars in
    `system/test_harness.py`; hundreds a minute in `test_named_points.py`.
F2, kill -9 at named points: `test_named_points.py`, `system/test_kill_points.py`; within a
    checkpoint `store/test_checkpoint_kill.py`, `store/test_metadata_copy.py`; rules, alerts,
    monitors and deliveries `system/test_watch_kill.py`, `test_delivery_kill.py`.
F3, power cuts: `test_power.py` (ext4 on a loop device), `journal/test_faults.py` (in memory).
F3b, torn and damaged journal segments: `test_torn.py`, `journal/test_recovery.py`; other files:
    `safekeeping/`, `store/test_metadata_copy.py`, `actors/test_sealer.py`.
F4, full disk: `system/test_disk_full.py`, `store/test_disk_full.py`.
F5, a fault at the n-th call: `journal/test_faults.py` for the journal, short writes included,
    `test_calls.py` for everything else.
F6, slow disk: `test_calls.py`.
F14, soak: `system/test_soak.py`.
F20, any order, against a model of sets: `test_machine.py`.
F23, backup under load and restore elsewhere: `system/test_backup.py`; parts that are lost and made
    anew from the journal: `safekeeping/test_repair.py`, `test_lost_part.py`, of a server under load
    `system/test_rebuild.py`.

Builds that are broken on purpose, all of which were seen to be found (2026-11-22): the eight of
`builds.py` by kills at points (after 3 to 37 rounds, seed 3) and by the machine (seed 11, at the
points where each goes wrong), `calls.py` ("early"), `power.py` ("unsynced"), without checksums in
`test_torn.py`, the liars of the harness, and of `system/broken_server.py` "hasty" (slow disk),
"skips_segment" (rebuilding), "leaks", "hoards" and "keeps_files" (soak). "manifest forgets" had not
been found in 61 rounds, as it was the ledger's sealed files only that were joined there, and nobody
asked whether listed files are there; now after 4 rounds.

Means: `life.py` is a server's work one call at a time, `points.py` the named points, `killer.py`
rounds in forked children, `machine.py` the model, `calls.py` faults by strace, `power.py` cuts.
All print their seed; `KILL_SEED`, `MACHINE_SEED`, `TORN_SEED`, `POWER_SEED`, `SLOW_SEED` and
`SOAK_SEED` repeat one.

Last long runs, 2026-11-22 where nothing else is said, nice 10, two shared cores under a load of 9
to 18; folders of kills, cuts, calls and machines in memory (tmpfs; the ext4 of the cuts too):
F1 300 kills at random (2026-11-21): 7.4 M rows acknowledged, 0 lost, 0 doubled.
F2 601 rounds (seed 20261122), 454 of them ended at a point, each of 36 at least three times: 10,219
    requests and 809,684 rows acknowledged, 0 lost, 0 doubled; a start took 0.8 s at the median, 9.5
    at most. Whole server, 20 of 500 rounds (2026-11-21, seed 77): 456,308 rows, 0 and 0.
F3 402 cuts (201 each, seeds 77 and 78): 1,095 requests, 86,276 rows acknowledged, 0 lost; unsynced
    (seed 5): rows lost at the fourth cut.
F3b 2026-11-21: 4,096 cuts, zeroed tails and zeroed bytes, 32,768 flipped bits, 20,000 damaged
    segments (9).
F5 each of 68 syncs, 15 renames, 22 unlinks, 4 truncations, 1 allocation, 525 writes: no wrong
    answer, 0 lost, works again. A start that meets the fault ends with a sentence; so does a
    server whose control.sqlite fails (17 of the syncs, a truncation, eight of the writes).
F6 2026-11-21: 0.2 s a sync for 20 s (seed 2832215256): 106,987 rows acknowledged, 0 lost. How soon
    it answers is looked at since then, in short forms only.
F14 20 lives of a minute and one of five (seed 991526133): 62,579 requests, 6,233,125 rows, 0 lost,
    0 doubled; ready in 12.5 s at most; medians of the second and the last third, and of those of
    the last life: memory 319 and 337, 359 and 350 MB; descriptors 31 and 33, 33 and 32; threads 17
    and 18, 18 and 17; WAL 1.7 and 0.9, 0.9 and 1.7 MB; folder 96 and 99, 116 and 117 MB.
    Another of 8 minutes and 2 (3298862732): 26,494 requests, 2,696,946 rows, 0 and 0; its folder,
    82 and 103 MB within the last life, follows the rate, which rose as the machine's load fell, so
    that it is bounded over all lives only. Rollups, 10, 18 and 20 MB in its thirds, grow until
    half a million rows of a table are merged.
F20 242 machines of 40 steps (seeds 601 to 612): 2,111 crashes at 36 points, 0 violations;
    the long form has 300.
"""
