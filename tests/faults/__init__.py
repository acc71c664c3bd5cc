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
    anew from the journal: `safekeeping/test_repair.py`, `test_lost_part.py`.

Each is shown to fail on a build that is broken on purpose: `builds.py`, `calls.py` ("early"),
`power.py` ("unsynced"), without checksums in `test_torn.py`, and the liars of the harness.

Means: `life.py` is a server's work one call at a time, `points.py` the named points, `killer.py`
rounds in forked children, `machine.py` the model, `calls.py` faults by strace, `power.py` cuts.
All print their seed; `KILL_SEED`, `MACHINE_SEED`, `TORN_SEED`, `POWER_SEED` and `SOAK_SEED` repeat
one.
"""
