"""The commands that talk to a running node, each an async function of a client and the parsed arguments.

They print answers and return whether the thing asked for was done; errors go up, to be told in `main`.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from typing import cast

from .. import settings
from ..client import Client
from ..outcomes import Outcomes
from ..runtime.datadir import unheld
from ..views import ClusterView, JobView
from .output import say, show_json, show_table, span

Command = Callable[[Client, argparse.Namespace], Awaitable[bool]]


async def enqueue(client: Client, args: argparse.Namespace) -> bool:
    params = {**args.json, **dict(args.params)}
    job = await client.enqueue(args.name, params, priority=args.priority, run_in=args.run_in, run_at=args.run_at)
    if not args.wait:
        print(job.id)
        return True
    result = await job.result()
    if not isinstance(result, Outcomes):
        show_json(result)
        return True
    outcomes = cast("Outcomes[object]", result)
    show_json(
        {
            name: {"status": it.status, "value": it.value, "error": str(it.error) if it.error is not None else None}
            for name, it in outcomes.items()
        }
    )
    return _did(outcomes.ok, f"{args.name} did not succeed everywhere")


async def status(client: Client, args: argparse.Namespace) -> bool:
    found = await client.status()
    if args.json:
        show_json({"cluster": client.cluster, **found.to_dict()})
        return True
    owner = found.owner.name if found.owner is not None else "nobody"
    print(f"cluster {client.cluster}, delayed queue owned by {owner}, up {span(found.uptime_ms)}")
    print("queues  ", "  ".join(f"{queue} {count}" for queue, count in found.queues.items()), f" dead {found.dead}")
    if found.degraded:
        print(f"degraded: {found.degraded} jobs have fewer copies than asked for")
    print()
    _show_members(found)
    if found.plans:
        print()
        show_table(
            ("PERIODIC", "EVERY", "ROUND", "NEXT"),
            (
                (
                    plan.name,
                    span(plan.frequency_ms),
                    plan.number,
                    "stopped" if plan.stopped else "runs" if plan.due_in_ms is None else f"in {span(plan.due_in_ms)}",
                )
                for plan in found.plans
            ),
        )
    slots = settings.resolve(cluster=client.cluster, data_dir=settings.AUTO).data_dir
    for folder in unheld(slots) if slots is not None else ():
        say(f"nobody holds {folder}: what is in its journal waits for one more `zhero run`")
    for task in found.missing:
        say(f"jobs wait for {task}, and no member has that task")
    return True


async def members(client: Client, args: argparse.Namespace) -> bool:
    found = await client.status()
    if args.json:
        show_json(found.members)
    else:
        _show_members(found)
    return True


def _show_members(found: ClusterView) -> None:
    """The members, and who of them did not answer."""
    show_table(
        (
            *("MEMBER", "STANDING", "LAGGING", "OWNER", "JOINED", "BUSY", "DEGRADED", "ANSWERED", "HEARD"),
            *("ENDPOINT", "PID", "VERSION", "TASKS"),
        ),
        (
            (
                member.name,
                member.standing,
                _yes(member.lagging),
                _yes(member.owner),
                member.joined or None,
                f"{member.busy}/{member.slots}",
                member.degraded,
                _yes(member.answered),
                f"{span(member.silent_ms)} ago",
                member.endpoint,
                member.pid,
                member.version,
                ", ".join(member.tasks),
            )
            for member in found.members
        ),
    )
    if found.silent:
        say(f"no answer from {', '.join(found.silent)}: what they hold is not counted")


def _yes(so: bool) -> str:
    return "yes" if so else "no"


async def jobs(client: Client, args: argparse.Namespace) -> bool:
    found = (await client.all_jobs(args.name)).values()
    if args.json:
        show_json(list(found))
    else:
        show_table(
            ("ID", "TASK", "QUEUE", "NODE", "ATTEMPT", "RUN AT", "PARAMS"),
            ((job.id, job.name, job.queue, job.node, job.attempt, job.run_at, _params(job)) for job in found),
        )
    return True


async def failed(client: Client, args: argparse.Namespace) -> bool:
    found = (await client.failed_jobs(args.name)).values()
    if args.json:
        show_json(list(found))
    else:
        show_table(
            ("ID", "TASK", "STATUS", "ATTEMPT", "ERROR", "PARAMS"),
            ((job.id, job.name, job.status, job.attempt, job.error, _params(job)) for job in found),
        )
    return True


def _params(job: JobView) -> str:
    return " ".join(f"{key}={value!r}" for key, value in job.params.items())


async def stats(client: Client, args: argparse.Namespace) -> bool:
    found = await client.stats()
    if args.json:
        show_json(found)
    else:
        names = list(found.totals)
        rows = [(task, *(counts.get(name) for name in names)) for task, counts in sorted(found.tasks.items())]
        show_table(("TASK", *(name.upper() for name in names)), [*rows, ("all", *found.totals.values())])
        if found.dropped:
            print()
            show_table(("TURNED AWAY OR DROPPED", "COUNT"), sorted(found.dropped.items()))
    return True


async def cancel(client: Client, args: argparse.Namespace) -> bool:
    return _did(await client.cancel(args.id), f"job {args.id} was not cancelled: it has ended, or can't be stopped")


async def retry(client: Client, args: argparse.Namespace) -> bool:
    return _did(await client.retry(args.id), f"job {args.id} is no dead letter")


async def discard(client: Client, args: argparse.Namespace) -> bool:
    return _did(await client.discard(args.id), f"job {args.id} is no dead letter")


async def stop_task(client: Client, args: argparse.Namespace) -> bool:
    return _did(await client.stop_task(args.name), f"task {args.name} was stopped already")


async def start_task(client: Client, args: argparse.Namespace) -> bool:
    return _did(await client.start_task(args.name), f"task {args.name} was not stopped")


def _did(done: bool, otherwise: str) -> bool:
    if not done:
        say(otherwise)
    return done


COMMANDS: dict[str, Command] = {
    "enqueue": enqueue,
    "status": status,
    "jobs": jobs,
    "failed": failed,
    "members": members,
    "stats": stats,
    "cancel": cancel,
    "retry": retry,
    "discard": discard,
    "stop-task": stop_task,
    "start-task": start_task,
}
