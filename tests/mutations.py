"""The code, broken in one line each: does the simulator notice?

A checker that can't fail is none. So each promise has a breakage here that breaks it, and the worlds of some seed have
to tell. `simulation/test_checkers.py` tries each with few seeds; this script tries all with more, and says for each:

    python tests/mutations.py [--seeds n] [--jobs p] [what]...

    caught by seed 3         a suspicion is not refuted
    survived 60 seeds        ...

Exit code 1 if any has survived, or made the simulator itself fall over: that shows nothing. `make mutations` runs it.

A breakage wraps one method, so it stands here in the words of the code that it breaks. One of members is tried in
worlds where members have a hard time (`ROUGH`), one of an engine in worlds of one node, of which a model knows all.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from zhero.core.broadcast import Broadcast
from zhero.core.calls import Calls
from zhero.core.entries import Dropped, Lent, Planned
from zhero.core.facts import Death
from zhero.core.intake import Intake
from zhero.core.jobs import Slice
from zhero.core.joining import Joining
from zhero.core.link import Link
from zhero.core.memory import Memory
from zhero.core.messages import Accepted, Did, Frame
from zhero.core.plans import Plans
from zhero.core.probing import Probing
from zhero.core.query import Query
from zhero.core.ready import ReadyQueue
from zhero.core.replication import Stream
from zhero.core.schedule import Schedule
from zhero.core.stealing import Stealing
from zhero.core.swim import Swim
from zhero.core.values import SUCCEEDED, Rumour, Standing
from zhero.sim.scene import Scene
from zhero.sim.story import BrokenPromise
from zhero.sim.world import World

Patch = Callable[[pytest.MonkeyPatch], None]


def wrap(where: type, name: str, change: Callable[..., Any]) -> Patch:
    """`change(original, self, *arguments)` takes the place of a method."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        original = getattr(where, name)
        monkeypatch.setattr(where, name, lambda self, *args, **kwargs: change(original, self, *args, **kwargs))

    return patch


def lose_the_last_of_a_batch(put: Any, kept: Slice, entry: Any) -> None:
    put(kept, replace(entry, jobs=entry.jobs[:-1]) if len(entry.jobs) > 1 else entry)


def drop_what_ended(append: Any, stream: Stream, entry: Any) -> None:
    if type(entry).__name__ != "Done" or stream.last % 7:
        append(stream, entry)


def spoil_params(begin: Any, stealing: Stealing, stream: Any, to: Any, run: Any) -> None:
    begin(stealing, stream, to, replace(run, params=run.params[:-1] + b"\xc3"))


def forget_to_number(lend: Any, kept: Slice, entry: Lent) -> None:
    lend(kept, entry)
    for job in entry.jobs:
        kept.records[job].attempt -= 1


def forget_the_rest_of_a_plan(ended: Any, plans: Plans, job: Any, at_ms: int) -> None:
    due_at_ms = {task: plan.due_at_ms for task, plan in plans.plans.items()}
    ended(plans, job, at_ms)
    for task, plan in plans.plans.items():
        plan.due_at_ms = due_at_ms[task]


def lose_a_plan(ended: Any, plans: Plans, job: Any, at_ms: int) -> None:
    task, _ = plans.rounds.get(job, ("", 0))
    ended(plans, job, at_ms)
    if task == "tick":
        plans.plans[task].due_at_ms = 1 << 60


def double_a_round(advance: Any, schedule: Schedule, plan: Any, now_ms: int) -> None:
    advance(schedule, plan, now_ms)
    if plan.waits:
        advance(schedule, plan, now_ms)


def stop_nothing(stop: Any, schedule: Schedule, task: str, why: str) -> bool:
    return task in schedule._plans


def count_every_missed_period(advance: Any, schedule: Schedule, plan: Any, now_ms: int) -> None:
    due_at_ms = plan.due_at_ms
    advance(schedule, plan, now_ms)
    if plan.waits:
        plan.due_at_ms = due_at_ms + plan.frequency_ms


def last_in_first_out(push: Any, queue: ReadyQueue, task: str, priority: int, jobs: Any) -> None:
    for job in jobs:
        queue.push_front(task, priority, job)


def never_claim_the_lower(order: Any, queue: ReadyQueue) -> Any:
    return order(queue)[:1]


def cancel_what_runs(cancel: Any, calls: Calls, asker: Any, call: Any, now_ms: int) -> None:
    stream = calls._streams.holding(call.job)
    if stream is not None and call.job in stream.slice.records:
        calls._outbox.answer(asker, Did(True))
    else:
        cancel(calls, asker, call, now_ms)


def accept_without_keeping(put: Any, intake: Intake, stream: Any, call: Any, now_ms: int) -> Any:
    answer, count = put(intake, stream, call, now_ms)
    if isinstance(answer, Accepted):
        return answer, count
    return Accepted([job for job, _ in call.jobs]), 0


def lend_one_too_many(room: Any, stealing: Stealing, row: Any) -> int:
    return int(room(stealing, row)) + 1


def lose_a_dead_letter(die: Any, kept: Slice, entry: Any) -> None:
    die(kept, entry)
    kept.apply(Dropped(entry.job))


def tell_a_copy_less(append: Any, stream: Stream, entry: Any) -> None:
    if isinstance(entry, Planned) and entry.task == "clock" and stream.last > 20:
        stream.tap, tap = None, stream.tap
        append(stream, entry)
        stream.tap = tap
    else:
        append(stream, entry)


def refute_nothing(hear: Any, swim: Swim, sender: Any, told: Rumour, now_ms: int) -> None:
    if told.standing is not Standing.SUSPECT:
        hear(swim, sender, told, now_ms)


def accept_an_old_life(hear: Any, swim: Swim, sender: Any, told: Rumour, better: Any, now_ms: int) -> None:
    swim._roster.gone.pop(told.member.life, None)
    hear(swim, sender, told, better, now_ms)


def take_it_twice(receive: Any, link: Link, frame: Frame, now_ms: int) -> Any:
    fresh = receive(link, frame, now_ms)
    return fresh or frame.numbered


def say_it_once(pack: Any, link: Link, peer: Any, session: Any, loose: Any, now_ms: int) -> None:
    for act in (lambda: None, lambda: pack(link, peer, session, loose, now_ms)):
        act()
        if session.resend_at_ms is not None:
            session.resend_at_ms = 1 << 60


def count_an_own_pause(notice: Any, probing: Probing, now_ms: int) -> None:
    probing._turned_at_ms = now_ms


def believe_every_death(hear: Any, swim: Swim, row: Any, told: Rumour, now_ms: int) -> None:
    swim.die(row, Death.TOLD, now_ms)


def know_only_refusals(probed: Any, probing: Probing, life: Any, refused: bool, now_ms: int) -> None:
    probed(probing, life, True, now_ms)


BROKEN: dict[str, Patch] = {
    "a verdict is dropped": wrap(Stream, "append", drop_what_ended),
    "the last job of a batch is lost": wrap(Slice, "_put", lose_the_last_of_a_batch),
    "jobs start early": wrap(Slice, "due", lambda due, kept, now_ms: due(kept, now_ms + 3)),
    "params are changed": wrap(Stealing, "_begin", spoil_params),
    "attempts are not counted": wrap(Slice, "_lend", forget_to_number),
    "an id that is known makes a second job": wrap(Intake, "_is_known", lambda known, intake, job: False),
    "what is refused is accepted": wrap(Intake, "put", accept_without_keeping),
    "nobody is told of an end": wrap(Query, "_tell_waiters", lambda tell, query, job, outcome, parts: None),
    "a wrong outcome is told": wrap(
        Query, "_ended", lambda ended, query, job, outcome, parts: ended(query, job, SUCCEEDED, parts)
    ),
    "results are forgotten at once": wrap(Memory, "keep", lambda keep, memory, *args: None),
    "a run that goes on counts as cancelled": wrap(Calls, "_cancel", cancel_what_runs),
    "a dead letter is lost": wrap(Slice, "_die", lose_a_dead_letter),
    "a plan forgets its rest": wrap(Plans, "ended", forget_the_rest_of_a_plan),
    "a plan is lost": wrap(Plans, "ended", lose_a_plan),
    "a round is made twice": wrap(Schedule, "_advance", double_a_round),
    "a missed period is made up for": wrap(Schedule, "_advance", count_every_missed_period),
    "a stopped task goes on": wrap(Schedule, "stop", stop_nothing),
    "the last come first": wrap(ReadyQueue, "push", last_in_first_out),
    "the highest priority is all that counts": wrap(ReadyQueue, "_claim_order", never_claim_the_lower),
    "more is lent than asked for": wrap(Stealing, "_room", lend_one_too_many),
    'an "all" job does not end with its parts': wrap(Broadcast, "on_ended", lambda ended, *args: None),
    "a copy misses an entry": wrap(Stream, "append", tell_a_copy_less),
    "time passes, and nothing becomes due": wrap(Slice, "due", lambda due, kept, now_ms: []),
    "a ready job is never lent": wrap(Stealing, "settle", lambda settle, stealing, now_ms: None),
}


MEMBERS_BROKEN: dict[str, Patch] = {
    "a suspicion is not refuted": wrap(Swim, "_hear_of_me", refute_nothing),
    "a life that is over is accepted again": wrap(Swim, "_hear_of", accept_an_old_life),
    "every death that is told is believed": wrap(Swim, "_hear_dead", believe_every_death),
    "nobody is given up for silence": wrap(Swim, "_dead_at_ms", lambda dead_at_ms, swim, life: 1 << 60),
    "a numbered message is taken twice": wrap(Link, "receive", take_it_twice),
    "what has no receipt is not said again": wrap(Link, "_pack_session", say_it_once),
    "a voice is no sign of life": wrap(Probing, "heard", lambda heard, probing, row, now_ms: None),
    "an own pause is the silence of others": wrap(Probing, "notice", count_an_own_pause),
    "a connect that is taken counts as refused": wrap(Probing, "on_probed", know_only_refusals),
    "a doubt never ends": wrap(Probing, "_confirm", lambda confirm, probing: None),
    "views that differ are not compared": wrap(Joining, "on_view", lambda on_view, joining, row, now_ms: None),
    "nobody is tried again": wrap(Joining, "_retry", lambda retry, joining, now_ms: None),
    "the ghost of a member is told nothing": wrap(Joining, "on_ghost", lambda on_ghost, joining, gone, now_ms: None),
}
ROUGH = Scene(
    nodes=4,
    hosts=2,
    profile="fast",
    seeds="first",
    idle=True,
    faults={
        **{"crash": 9_000, "pause": 3_000, "block": 6_000, "freeze": 12_000, "false hint": 2_000},
        **{"cut": 4_000, "one-way cut": 4_000, "split": 6_000, "bridge": 8_000, "loss": 3_000},
    },
)
"""Nobody asks for anything, and everything that may happen to members does."""
ALONE = Scene(faults={"pause": 6_000, "block": 10_000})
"""One node, of which a model says what each step has to be."""
ASKING = replace(ROUGH, idle=False)
OF_LINKS = ("a numbered message is taken twice", "what has no receipt is not said again")
"""What only shows where there is much to say."""

MUTATIONS: dict[str, Patch] = {**MEMBERS_BROKEN, **BROKEN}
"""All of them, by what is wrong then."""


# --- who notices --------------------------------------------------------------------------------------------------


def noticed(what: str, seed: int) -> bool:
    """Whether a promise is broken in the world of this seed, with this breakage in the code."""
    scene = ALONE
    if what in MEMBERS_BROKEN:
        scene = ASKING if what in OF_LINKS else ROUGH
    try:
        World(seed, scene=scene).run()
    except BrokenPromise:
        return True
    return False


def caught_by(what: str, seeds: Iterable[int]) -> int | None:
    """The first of these seeds that notices; None: it survives them."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        MUTATIONS[what](monkeypatch)
        return next((seed for seed in seeds if noticed(what, seed)), None)


def tried(what: str, seeds_count: int) -> tuple[bool, str]:
    """Whether it was caught, and the line that says so."""
    try:
        seed = caught_by(what, range(seeds_count))
    except Exception as error:
        return False, f"{'broke the simulator':<24} {what}: {type(error).__name__}: {error}"
    if seed is None:
        return False, f"{f'survived {seeds_count} seeds':<24} {what}"
    return True, f"{f'caught by seed {seed}':<24} {what}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Try them; returns the exit code."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=60, metavar="N", help="at most, of each (60)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="P", help="processes; default: all cores"
    )
    parser.add_argument("what", nargs="*", help="of these only; default: all")
    options = parser.parse_args(arguments)
    unknown = [what for what in options.what if what not in MUTATIONS]
    if unknown or options.seeds < 1 or options.jobs < 1:
        parser.error(f"there is no {unknown[0]!r}" if unknown else "--seeds and --jobs are at least 1")
    chosen: list[str] = options.what or list(MUTATIONS)
    survived = 0
    for caught, line in _all(chosen, options.seeds, options.jobs):
        survived += not caught
        print(line, flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} caught")
    return 1 if survived else 0


def _all(chosen: list[str], seeds_count: int, processes: int) -> Iterator[tuple[bool, str]]:
    """Each, in the order of the table; every process is used for several, as each takes its breakage back."""
    trying = partial(tried, seeds_count=seeds_count)
    if processes == 1:
        yield from map(trying, chosen)
        return
    with multiprocessing.get_context("spawn").Pool(min(processes, len(chosen))) as pool:
        yield from pool.imap(trying, chosen)


if __name__ == "__main__":
    sys.exit(main())
