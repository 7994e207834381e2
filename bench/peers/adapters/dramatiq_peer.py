"""Dramatiq: one process of threads, acknowledged after the run."""

from __future__ import annotations

import time
from collections.abc import Iterable

import dramatiq
from common import REDIS, SLOTS, TO, WORK_S, mark, mark_end
from dramatiq.brokers.redis import RedisBroker

broker = RedisBroker(url=REDIS)
dramatiq.set_broker(broker)
WORKER = ["-m", "dramatiq", "dramatiq_peer", "--processes", "1", "--threads", str(SLOTS), "--skip-logging"]


@dramatiq.actor
def no_op(to: str, number: int) -> None:
    mark(number)


@dramatiq.actor
def work(to: str, number: int) -> None:
    mark(number)
    time.sleep(WORK_S)
    mark_end(number)


class Producer:
    """Every call is one round trip: a group is sent one message after another too."""

    def open(self) -> None:
        broker.client.ping()

    def one(self, number: int) -> None:
        no_op.send(to=TO, number=number)

    def many(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            no_op.send(to=TO, number=number)

    def later(self, number: int, span_s: float) -> None:
        no_op.send_with_options(kwargs={"to": TO, "number": number}, delay=round(span_s * 1000))

    def work(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            work.send(to=TO, number=number)

    def close(self) -> None:
        broker.close()
