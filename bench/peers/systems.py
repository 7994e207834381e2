"""Who takes part, and what each promises."""

from __future__ import annotations

from dataclasses import dataclass

REDIS_ONLY = "Redis, in memory, one copy"
BASELINE = "zhero"
"""All ratios are to this one."""


@dataclass(frozen=True, slots=True)
class System:
    """One that takes part.

    Attributes:
        module: its adapter.
        packages: what pip installs for it; none: it runs where the bench runs.
        python: the least version that it needs.
        rate: about what it sustains, in jobs per second: how many jobs make a measure long enough.
        held: where a job is from the moment it is accepted.
        acknowledged: when it is taken off the queue, and so what a kill can cost.
        acks: a job is acknowledged only after its run.
        broker: it needs a Redis.
        alone: there is no worker beside the producer.
    """

    name: str
    module: str
    packages: tuple[str, ...]
    rate: int
    held: str
    acknowledged: str
    acks: bool = True
    python: tuple[int, int] = (3, 11)
    broker: bool = True
    alone: bool = False


SYSTEMS = (
    System(
        BASELINE,
        "zhero_peer",
        (),
        25_000,
        "two processes, in memory, two copies",
        "after the run",
        broker=False,
    ),
    System(
        "zhero alone",
        "zhero_peer",
        (),
        25_000,
        "its own process, in memory, one copy",
        "after the run",
        broker=False,
        alone=True,
    ),
    System("Celery", "celery_peer", ("celery[redis]", "hiredis"), 1_000, REDIS_ONLY, "after the run (acks_late)"),
    System("Dramatiq", "dramatiq_peer", ("dramatiq[redis]", "hiredis"), 2_000, REDIS_ONLY, "after the run"),
    System("arq", "arq_peer", ("arq", "hiredis"), 1_200, REDIS_ONLY, "after the run"),
    System(
        "Taskiq",
        "taskiq_peer",
        ("taskiq", "taskiq-redis", "hiredis"),
        2_000,
        REDIS_ONLY,
        "after the run (when_executed)",
    ),
    System("SAQ", "saq_peer", ("saq[redis,hiredis]", "typing_extensions"), 2_000, REDIS_ONLY, "after the run"),
    System("Huey", "huey_peer", ("huey", "redis", "hiredis"), 2_000, REDIS_ONLY, "before the run", acks=False),
    System("RQ", "rq_peer", ("rq", "hiredis"), 400, REDIS_ONLY, "after the run"),
    System("streaQ", "streaq_peer", ("streaq",), 1_300, REDIS_ONLY, "after the run", python=(3, 12)),
    System("ardiq", "ardiq_peer", ("ardiq",), 7_000, REDIS_ONLY, "after the run", python=(3, 12)),
)
NAMES = tuple(system.name for system in SYSTEMS)
