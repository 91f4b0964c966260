"""The threads of a worker sleep until there is work, or they are to stop."""

import threading
import time
from queue import Empty, Queue

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from support.waiting import wait_for
from workers.dramatiq_worker import Worker, WorkQueue


def test_who_waits_for_work_gets_it_however_short_his_timeout() -> None:
    work, taken = WorkQueue(), Queue()  # type: ignore[var-annotated]
    thread = threading.Thread(target=lambda: taken.put(work.get(timeout=0.001)))
    thread.start()
    time.sleep(0.05)  # that long nothing comes
    work.put("work")

    assert "work" == taken.get(timeout=10)
    thread.join(10)


def test_after_the_end_nobody_waits_and_what_is_left_is_taken() -> None:
    work = WorkQueue()
    work.put("left")
    work.end()

    assert "left" == work.get(timeout=60)
    with pytest.raises(Empty):
        work.get(timeout=60)
    with pytest.raises(Empty):
        work.get_nowait()


def test_an_idle_worker_does_its_work_and_all_its_threads_end_when_it_is_stopped() -> None:
    broker, done = StubBroker(), []  # type: ignore[var-annotated]
    actor = dramatiq.actor(done.append, actor_name="work", queue_name="work", broker=broker)
    worker = Worker(broker, worker_threads=4, worker_timeout=50)
    worker.start()
    for number in range(8):
        actor.send(number)
    wait_for(lambda: len(done) == 8)
    threads = [*worker.workers]

    worker.stop(10_000)

    assert ([*range(8)], []) == (sorted(done), [thread for thread in threads if thread.is_alive()])
    broker.close()
