"""RQ: a worker that does not fork for each job, with its scheduler; no results, an abandoned job may be retried."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta

from common import REDIS, TO, WORK_S, mark, mark_end
from redis import Redis
from rq import Queue, Retry

WORKER = [
    *("-m", "rq.cli", "worker", "bench", "--url", REDIS, "--worker-class", "rq.worker.SimpleWorker"),
    *("--with-scheduler", "--logging_level", "ERROR", "--path", "."),
]


def no_op(to: str, number: int) -> None:
    mark(number)


def work(to: str, number: int) -> None:
    mark(number)
    time.sleep(WORK_S)
    mark_end(number)


class Producer:
    """`enqueue_many`, 500 jobs a time."""

    def open(self) -> None:
        import rq_peer  # jobs are named by the module of their function, and this one may be called otherwise

        self._tasks = rq_peer
        self._queue = Queue("bench", connection=Redis.from_url(REDIS))

    def one(self, number: int) -> None:
        self._queue.enqueue(self._tasks.no_op, to=TO, number=number, result_ttl=0)

    def many(self, numbers: Iterable[int]) -> None:
        self._all(self._tasks.no_op, numbers)

    def later(self, number: int, span_s: float) -> None:
        span = timedelta(seconds=span_s)
        self._queue.enqueue_in(span, self._tasks.no_op, to=TO, number=number, result_ttl=0)

    def work(self, numbers: Iterable[int]) -> None:
        self._all(self._tasks.work, numbers)

    def _all(self, function: object, numbers: Iterable[int]) -> None:
        numbers = list(numbers)
        for start in range(0, len(numbers), 500):
            self._queue.enqueue_many(
                [
                    Queue.prepare_data(function, kwargs={"to": TO, "number": number}, result_ttl=0, retry=Retry(max=3))
                    for number in numbers[start : start + 500]
                ]
            )

    def close(self) -> None:
        self._queue.connection.close()
