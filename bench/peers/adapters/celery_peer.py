"""Celery: prefork, acknowledged after the run, no results, no events, no gossip; fetches ahead only for short jobs."""

from __future__ import annotations

import time
from collections.abc import Iterable

from celery import Celery
from common import LONG, REDIS, SLOTS, TO, WORK_S, mark, mark_end

app = Celery("bench", broker=REDIS)
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1 if LONG else 64,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
)
WORKER = [
    *("-m", "celery", "-A", "celery_peer", "worker", "--pool=prefork", f"--concurrency={SLOTS if LONG else 1}"),
    *("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=ERROR"),
]


@app.task
def no_op(to: str, number: int) -> None:
    mark(number)


@app.task
def work(to: str, number: int) -> None:
    mark(number)
    time.sleep(WORK_S)
    mark_end(number)


class Producer:
    """Every call is one round trip: there is none for many jobs over Redis. One producer is kept for all."""

    def open(self) -> None:
        self._producer = app.amqp.producer_pool.acquire(block=True)

    def one(self, number: int) -> None:
        no_op.apply_async(kwargs={"to": TO, "number": number})

    def many(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            no_op.apply_async(kwargs={"to": TO, "number": number}, producer=self._producer)

    def later(self, number: int, span_s: float) -> None:
        no_op.apply_async(kwargs={"to": TO, "number": number}, countdown=span_s, producer=self._producer)

    def work(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            work.apply_async(kwargs={"to": TO, "number": number}, producer=self._producer)

    def close(self) -> None:
        self._producer.release()
