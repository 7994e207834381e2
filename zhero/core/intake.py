"""What enters: the one place where a new job is checked against limits, and put.

All that can be wrong with an enqueue is found before anything is queued; once accepted a job is never refused again,
whatever happens to it later. The same id twice is one job, whether the first is live, ended not long ago, or stands in
the same call; so whoever has lost the answer asks again, and is told "accepted" even when there is no room any more,
or no such task.

A job goes to the home's own slice; what is to run later, or has an id of the caller's own, to the delayed one.

State: whether anything is taken; the header of jobs enqueued alike. Bound: one per task, priority and announce.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..config import PRIORITY_MAX, SPAN_MAX_MS, Limits
from .effects import Outbox
from .entries import Put
from .facts import JobQueued
from .messages import Accepted, Enqueue, Refusal, Refused
from .streams import Stream, Streams
from .values import NO_JOB, Header, JobId, TaskSpec, after

PART_BYTES = 128 * 1024
"""A batch is put in entries of about this size."""


class Intake:
    """Takes new jobs, or says why not."""

    def __init__(
        self, name: str, streams: Streams, specs: Mapping[str, TaskSpec], limits: Limits, outbox: Outbox
    ) -> None:
        self._name = name
        self._streams = streams
        self._specs = specs
        self._limits = limits
        self._outbox = outbox
        self._headers: dict[tuple[str, int | None, bool | None], Header] = {}
        self.closed = False  # the node is leaving
        self.disk_full = False

    def on_tasks(self) -> None:
        """Definitions have changed."""
        self._headers.clear()

    def refusal(self, call: Enqueue) -> Refused | None:
        """What is wrong with the call itself; None: nothing."""
        limits = self._limits
        if call.task not in self._specs and not all(self._is_known(job) for job, _ in call.jobs):
            return Refused(Refusal.UNKNOWN_TASK, call.task)
        if not 0 < len(call.jobs) <= limits.batch_max_count:
            return Refused(Refusal.TOO_LARGE, f"{len(call.jobs)} jobs at once, limit {limits.batch_max_count}")
        if not 0 <= call.delay_ms <= SPAN_MAX_MS or abs(call.priority or 0) > PRIORITY_MAX:
            return Refused(Refusal.PARAMS_INVALID, "delay or priority is out of bounds")
        for job, params in call.jobs:
            if job == NO_JOB:
                return Refused(Refusal.PARAMS_INVALID, "0 is no id of a job")
            if len(params) > limits.payload_max_bytes:
                return Refused(Refusal.TOO_LARGE, f"params of {len(params)} bytes, limit {limits.payload_max_bytes}")
        return None

    def put(self, stream: Stream, call: Enqueue, now_ms: int) -> tuple[Accepted | Refused, int]:
        """Put the jobs of a call that nothing is wrong with: all, or none.

        Returns:
            The answer, for when copies exist, and how many jobs are new.
        """
        new: dict[JobId, bytes] = {}
        for job, params in call.jobs:
            if not self._is_known(job):
                new.setdefault(job, params)
        if new:
            refused = self.no_room(len(new), sum(map(len, new.values())))
            if refused is not None:
                return refused, 0
            header = self._header(call)
            due_at_ms = after(now_ms, call.delay_ms) if call.delay_ms > 0 else 0
            parts = _parts(list(new.items()))
            for part in parts:
                stream.append(Put(header, part, now_ms, due_at_ms, call.keyed, part is not parts[-1]))
            if self._outbox.listening:
                for job in new:
                    self._outbox.tell(JobQueued(job, call.task, header.announce, call.delay_ms))
        return Accepted([job for job, _ in call.jobs]), len(new)

    def no_room(self, count: int, size: int) -> Refused | None:
        """Why so many new jobs with so many bytes of params can't be taken now; None: they can."""
        limits = self._limits
        if self.closed:
            return Refused(Refusal.LEAVING, f"node {self._name} is stopping")
        if self.disk_full:
            return Refused(Refusal.DISK_FULL, f"the disk under the journal of node {self._name} is full")
        if self._streams.jobs_count + count > limits.jobs_max:
            return Refused(Refusal.QUEUE_FULL, f"{limits.jobs_max} jobs (max_jobs)")
        if self._streams.jobs_bytes + size > limits.jobs_max_bytes:
            return Refused(Refusal.QUEUE_FULL, f"{limits.jobs_max_bytes} bytes of params (max_bytes)")
        return None

    def _is_known(self, job: JobId) -> bool:
        for stream in self._streams:
            kept = stream.slice
            if job in kept or job in kept.memory:
                return True
        return False

    def _header(self, call: Enqueue) -> Header:
        key = (call.task, call.priority, call.announce)
        header = self._headers.get(key)
        if header is None:
            spec = self._specs[call.task]
            header = self._headers[key] = Header(
                spec.name,
                spec.scope,
                spec.priority if call.priority is None else call.priority,
                spec.announce if call.announce is None else call.announce,
                spec.result_ttl_ms,
                spec.backups,
                spec.once,
            )
        return header


def _parts(jobs: list[tuple[JobId, bytes]]) -> list[list[tuple[JobId, bytes]]]:
    """A batch cut into what fits into frames."""
    parts: list[list[tuple[JobId, bytes]]] = [[]]
    room = PART_BYTES
    for job in jobs:
        size = len(job[1]) + 25
        if size > room and parts[-1]:
            parts.append([])
            room = PART_BYTES
        parts[-1].append(job)
        room -= size
    return parts
