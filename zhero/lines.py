"""Facts as lines for people and machines: `mark event key=value ...`, the same from a node and from the simulator.

Marks: `·` it happened here, `!` somebody should look. A job that is not to be announced makes no line at its start,
wait and end, except where it went wrong.
"""

from __future__ import annotations

import logging

from .core.facts import (
    DeadLetterDropped,
    Fact,
    JobEnded,
    JobQueued,
    JobRetried,
    JobStarted,
    PeerMisbehaved,
    TaskMissing,
    TaskScheduled,
    TaskUnscheduled,
    VerdictIgnored,
)
from .core.values import Status, job_text

_FINE = (Status.SUCCEEDED, Status.CANCELLED, Status.SKIPPED)


def line(fact: Fact) -> tuple[int, str] | None:
    """The line of a fact and its `logging` level, or None: it is not to be said."""
    match fact:
        case JobQueued(job, task, announce, run_in_ms):
            return _said(announce, f"· queued {task} id={job_text(job)} run_in={run_in_ms}ms")
        case JobStarted(job, task, announce, attempt):
            return _said(announce, f"· started {task} id={job_text(job)} attempt={attempt}")
        case JobEnded(job, task, announce, attempt, status, ran_ms, failure):
            what = f"{status.value} {task} id={job_text(job)} attempt={attempt} ran={ran_ms}ms"
            if status in _FINE:
                return _said(announce, f"· {what}")
            why = f" why={failure.kind}: {failure.message}" if failure is not None else ""
            trace = f"\n{failure.traceback.rstrip()}" if failure is not None and failure.traceback else ""
            return logging.ERROR, f"! {what}{why}{trace}"
        case JobRetried(job, task, announce, attempt, run_in_ms, snoozed, failure):
            why = f" why={failure.kind}: {failure.message}" if failure is not None else ""
            what = f"{task} id={job_text(job)} attempt={attempt} run_in={run_in_ms}ms{why}"
            return _said(announce, f"· snoozed {what}") if snoozed else (logging.WARNING, f"! retry of {what}")
        case TaskScheduled(task, run_in_ms):
            return logging.INFO, f"· scheduled {task} next_in={run_in_ms}ms"
        case TaskUnscheduled(task, why):
            return logging.INFO, f"· unscheduled {task} why={why}"
        case TaskMissing(task, waiting):
            return logging.WARNING, f"! missing {task} waiting={waiting}: no member has this task, its jobs wait"
        case DeadLetterDropped(job, task):
            return logging.WARNING, f"! dropped dead letter {task} id={job_text(job)}: the store is full"
        case VerdictIgnored(job, attempt):
            return logging.DEBUG, f"· ignored verdict id={job_text(job)} attempt={attempt}"
        case PeerMisbehaved(peer, what):
            return logging.WARNING, f"! peer {peer.node.hex()[:8]} {what}"


def _said(announce: bool, text: str) -> tuple[int, str] | None:
    return (logging.INFO, text) if announce else None
