"""One at a time, first come first served, bounded; cancelled work never begins, running work is told."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from awareness.errors import UsageError
from awareness.serve.error_json import Refused
from awareness.serve.event_stream import events_of
from awareness.serve.forwarding_reporter import ForwardingReporter
from awareness.serve.question_queue import QuestionQueue


async def received(job):
    return [event async for event in job.events(5) if event is not None]


def test_work_is_done_one_at_a_time_in_order():
    async def run():
        queue, order, gate = QuestionQueue(2), [], threading.Event()
        jobs = [
            queue.submit(lambda job, i=i: (gate.wait(5), order.append(i), job.send("done", {"i": i})))
            for i in (0, 1, 2)
        ]
        assert queue.waiting == 2
        with pytest.raises(Refused) as refusal:
            queue.submit(lambda job: None)
        assert (refusal.value.status, refusal.value.headers) == (429, {"Retry-After": "5"})
        gate.set()
        heard = [await received(job) for job in jobs]
        assert order == [0, 1, 2] and queue.waiting == 0
        assert heard[0] == [("queued", {"position": 0}), ("done", {"i": 0})]
        assert heard[2] == [("queued", {"position": n}) for n in (2, 1, 0)] + [("done", {"i": 2})]
        queue.close()
        queue.join()

    asyncio.run(run())


def test_cancelled_work_never_begins_and_frees_its_place():
    async def run():
        queue, gate, begun = QuestionQueue(1), threading.Event(), []
        first = queue.submit(lambda job: gate.wait(5))
        second = queue.submit(lambda job: begun.append(2))
        second.cancel()
        assert queue.waiting == 0
        third = queue.submit(lambda job: begun.append(3))
        gate.set()
        for job in (first, second, third):
            await received(job)
        assert begun == [3] and second.error() is None
        queue.close()
        queue.join()

    asyncio.run(run())


def test_what_is_told_reaches_its_own_listener_and_a_cancelled_job_ends_at_the_next_progress():
    async def run():
        queue, reporter, going = QuestionQueue(1), ForwardingReporter(), threading.Event()

        def work(job):
            with reporter.telling(job), reporter.progress() as progress:
                reporter.note("indexed")
                progress("encoding", 1, 2)
                going.set()
                while True:
                    time.sleep(0.001)
                    progress("encoding", 2, 2)

        job = queue.submit(work)
        await asyncio.to_thread(going.wait, 5)
        job.cancel()
        heard = await received(job)
        assert heard[1:3] == [
            ("note", {"message": "indexed"}),
            ("progress", {"what": "encoding", "done": 1, "total": 2}),
        ]
        assert job.error() is None
        queue.close()
        queue.join()

    asyncio.run(run())


def test_an_error_is_the_last_event_and_one_of_ours_keeps_its_text_to_itself():
    async def run():
        queue = QuestionQueue(1)

        def fail(error):
            def work(job):
                raise error

            return work

        refused = [frame async for frame in events_of(queue.submit(fail(UsageError("no such", hint="another"))))]
        assert b'"type":"usage_error"' in refused[-1] and b"no such" in refused[-1]
        ours = [frame async for frame in events_of(queue.submit(fail(ValueError("a secret"))))]
        assert ours[-1].startswith(b"event: error\n") and b"ValueError" in ours[-1] and b"a secret" not in ours[-1]
        queue.close()
        queue.join()

    asyncio.run(run())


def test_a_closed_queue_takes_nothing_and_cancels_what_it_has():
    async def run():
        queue, going = QuestionQueue(1), threading.Event()

        def work(job):
            going.set()
            while not job.is_cancelled():
                pass

        running = queue.submit(work)
        await asyncio.to_thread(going.wait, 5)
        waiting = queue.submit(work)
        queue.close()
        with pytest.raises(Refused) as refusal:
            queue.submit(work)
        assert refusal.value.status == 503
        frames = [frame async for frame in events_of(waiting)]
        assert b"the server ended" in frames[-1]
        await received(running)
        queue.join()

    asyncio.run(run())
