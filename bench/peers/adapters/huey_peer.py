"""Huey: threads, blocking reads, no results. A job is taken out of Redis before it runs."""

from __future__ import annotations

import time
from collections.abc import Iterable

from common import REDIS, SLOTS, TO, WORK_S, mark, mark_end
from huey import RedisHuey

huey = RedisHuey("bench", url=REDIS, results=False)
WORKER = ["-m", "huey.bin.huey_consumer", "huey_peer.huey", "-k", "thread", "-w", str(SLOTS), "--quiet"]


@huey.task()
def no_op(to: str, number: int) -> None:
    mark(number)


@huey.task()
def work(to: str, number: int) -> None:
    mark(number)
    time.sleep(WORK_S)
    mark_end(number)


class Producer:
    """Every call is one round trip."""

    def open(self) -> None:
        huey.storage.conn.ping()

    def one(self, number: int) -> None:
        no_op(to=TO, number=number)

    def many(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            no_op(to=TO, number=number)

    def later(self, number: int, span_s: float) -> None:
        no_op.schedule(kwargs={"to": TO, "number": number}, delay=span_s)

    def work(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            work(to=TO, number=number)

    def close(self) -> None:
        huey.storage.conn.close()
