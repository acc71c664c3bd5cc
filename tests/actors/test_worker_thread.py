"""The worker thread: results come back in order, errors too, and nothing outlives the actor."""

from __future__ import annotations

import threading

import pytest
import trio

from ingester.actors.worker_thread import WorkerThread


async def test_results_come_back_one_by_one() -> None:
    with WorkerThread("worker") as thread:
        for number in range(100):
            thread.submit(lambda number=number: (number, threading.current_thread().name))
            assert await thread.result() == (number, "worker")


async def test_what_a_call_raises_is_raised_and_the_thread_goes_on() -> None:
    def fail() -> None:
        raise OSError("no space")

    with WorkerThread("worker") as thread:
        thread.submit(fail)
        with pytest.raises(OSError, match="no space"):
            await thread.result()
        thread.submit(lambda: 7)
        assert await thread.result() == 7


async def test_a_result_that_is_there_already_is_taken() -> None:
    with WorkerThread("worker") as thread:
        thread.submit(lambda: 7)
        await trio.sleep(0.05)
        assert await thread.result() == 7


async def test_cancellation_waits_for_the_call_and_leaves_no_thread() -> None:
    may_end = threading.Event()
    ended = []

    def call() -> None:
        assert may_end.wait(10)
        ended.append(True)

    async def work() -> None:
        with WorkerThread("cancelled worker") as thread:
            thread.submit(call)
            await thread.result()
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        may_end.set()
    assert ended == [True]
    assert not any(t.name == "cancelled worker" for t in threading.enumerate())
