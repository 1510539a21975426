"""A writer that is killed at any moment: no reader sees a half of anything, nothing that was committed is lost, and the
next run goes on from there."""

from __future__ import annotations

import os
import random
import signal
import time

from awareness.index.store.layout import IndexLayout
from awareness.index.store.lock import writing
from awareness.index.store.store import Store
from tests.reliability.worker import NOTHING, SOAK, Workers, observe, verify, write_version

KILLS = 200 if SOAK else 30


def test_a_run_that_is_killed_at_random_points(tmp_path):
    random_delay = random.Random(7)
    root, layout = tmp_path / "tree", IndexLayout(tmp_path / "index")
    run = {"root": str(root), "folder": str(layout.root)}
    killed = version = 0
    seen = NOTHING
    with Workers() as workers:
        write_version(root, 0)
        started = time.monotonic()
        workers.call("index", root=str(root), folder=str(tmp_path / "measured"))
        seconds = time.monotonic() - started
        while killed < KILLS:
            collect = version % 3 == 2  # then only what is shown has to stay
            pid = workers.start("index", **run, collect=collect)
            due = time.monotonic() + random_delay.uniform(0, seconds)
            if random_delay.random() < 0.5 and layout.exists:
                with Store.open(layout) as store:
                    reader = observe(store)
                assert (reader.version or 0) >= (seen.version or 0)
                seen = reader
            time.sleep(max(0.0, due - time.monotonic()))
            os.kill(pid, signal.SIGKILL)
            status = workers.wait(pid).status
            with writing(layout):  # a killed writer's lock is free at once
                pass
            after = verify(layout, newest=version)
            assert after.version in (seen.version, version)
            assert after.latents >= (seen.latents & after.chunks if collect else seen.latents)
            seen = after
            seconds *= 1.1 if status else 0.8  # towards what a run of few changes takes
            if status == -signal.SIGKILL:
                killed += 1
            if status == 0 or killed % 4 == 0:
                assert status in (0, -signal.SIGKILL)
                workers.call("index", **run)
                seen = verify(layout, newest=version)
                assert (seen.version, seen.latents >= seen.chunks) == (version, True)
                version += 1
                write_version(root, version)
    assert killed == KILLS
