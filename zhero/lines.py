"""Facts as lines for people and machines: `mark event key=value ...`, the same from a node and from the simulator.

Marks: `·` it happened here, `!` somebody should look. A job that is not to be announced makes no line at its start,
wait and end, except where it went wrong.
"""

from __future__ import annotations

import logging

from .core.facts import (
    Confirmed,
    DeadLetterDropped,
    Degraded,
    DiskFailed,
    DiskFull,
    Fact,
    IdentityTaken,
    JobEnded,
    JobQueued,
    JobRetried,
    JobStarted,
    Joined,
    OwnerChanged,
    Paused,
    PeerDied,
    PeerJoined,
    PeerLagging,
    PeerLeft,
    PeerMisbehaved,
    PeerRefuted,
    PeerSuspected,
    Reborn,
    Recovered,
    TaskMissing,
    TaskScheduled,
    TaskUnscheduled,
    TookOver,
    VerdictIgnored,
)
from .core.values import Member, Status, job_text

MemberFact = (
    Confirmed
    | Degraded
    | DiskFailed
    | DiskFull
    | IdentityTaken
    | Joined
    | OwnerChanged
    | Paused
    | PeerDied
    | PeerJoined
    | PeerLagging
    | PeerLeft
    | PeerRefuted
    | PeerSuspected
    | Reborn
    | Recovered
    | TookOver
)

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
        case _:
            return _of_members(fact)


def _of_members(fact: MemberFact) -> tuple[int, str]:
    match fact:
        case Joined(joined, others):
            return logging.INFO, f"· member joined={joined} others={others}"
        case PeerJoined(member, joined):
            return logging.INFO, f"· joined {_who(member)} joined={joined} at={member.endpoint}"
        case PeerSuspected(member, dead_in_ms):
            return logging.INFO, f"· suspected {_who(member)} dead_in={dead_in_ms}ms"
        case PeerRefuted(member):
            return logging.INFO, f"· refuted {_who(member)}"
        case PeerDied(member, how):
            return logging.WARNING, f"! died {_who(member)} how={how.value}"
        case PeerLeft(member):
            return logging.INFO, f"· left {_who(member)}"
        case PeerLagging(member, age_ms, lagging=True):
            return logging.WARNING, f"! lagging {_who(member)} age={age_ms}ms: its event loop is late"
        case PeerLagging(member):
            return logging.INFO, f"· recovered {_who(member)}: its event loop turns again"
        case Paused(span_ms):
            return logging.WARNING, f"! paused span={span_ms}ms: this node starts nothing until a peer confirms it"
        case Confirmed():
            return logging.INFO, "· confirmed: the pause is over"
        case Reborn(life):
            return logging.WARNING, f"! reborn life={life.life}: others had given this node up"
        case IdentityTaken(other):
            return logging.ERROR, f"! identity taken by {_who(other)} at={other.endpoint}: this node has to stop"
        case OwnerChanged(owner, epoch, mine):
            return logging.INFO, f"· owner {_who(owner)} epoch={epoch}{': this node' if mine else ''}"
        case TookOver(name, jobs):
            return logging.WARNING, f"! took over {name} jobs={jobs}: they are answered for here now"
        case Recovered(jobs, copies):
            return logging.INFO, f"· recovered jobs={jobs} copies={copies} from the journal"
        case DiskFull(is_over=True):
            return logging.INFO, "· the journal can write again: new jobs are taken"
        case DiskFull():
            return logging.ERROR, "! the disk under the journal is full: no new job is taken, what runs goes on"
        case DiskFailed(why):
            return logging.ERROR, f"! the journal has failed: {why}; nobody knows what it holds, this node has to stop"
        case Degraded(jobs=0):
            return logging.INFO, "· degraded jobs=0: all have their copies again"
        case Degraded(jobs):
            return logging.WARNING, f"! degraded jobs={jobs}: they have fewer copies than was asked for"


def _who(member: Member) -> str:
    """A member as lines name it; names need not differ, ids do."""
    return f"{member.name} node={member.life.node.hex()[:8]}"


def _said(announce: bool, text: str) -> tuple[int, str] | None:
    return (logging.INFO, text) if announce else None
