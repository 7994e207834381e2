"""What happens in a world, step by step, and how it is told.

A step is one input of one engine with all that came of it: the entries it decided and the effects it asked for. The
checkers judge steps, a trace prints them, and a broken promise quotes those that touch the broken job. Steps hold
references, nothing is turned into text before somebody reads it.

Lines are marked like those of a node: `→` it came in, `←` it went out, `·` it happened, `!` somebody should look.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Any, cast

from ..core.effects import Asker, Connect, Disconnect, Effect, Knock, Persist, Probe, Reply, Send, Start, Stop, Tell
from ..core.entries import Entry
from ..core.facts import (
    IdentityTaken,
    PeerDied,
    PeerJoined,
    PeerLagging,
    PeerLeft,
    PeerMisbehaved,
    PeerRefuted,
    PeerSuspected,
)
from ..core.messages import Answer, Call, Frame, GiveUp, Listed, Response
from ..core.values import Header, JobId, Life, Member, Rumour, Run
from ..lines import line

_LIST_MAX_COUNT = 6
_BYTES_MAX = 12
_STORY_MAX_COUNT = 30
_STORY_FIRST_COUNT = 10
"""Of a longer story the first lines are told too: who asked for the job, and of whom."""
_LINE_MAX_CHARS = 300
_AROUND_CHARS = (60, 160)
_OF_MEMBERS = (
    *(PeerJoined, PeerSuspected, PeerRefuted, PeerDied, PeerLeft, PeerLagging, PeerMisbehaved),
    IdentityTaken,
)
_JOB_BITS_MIN = 64  # ids of jobs are 128 bits, nothing else here comes near


@dataclass(slots=True)
class Step:
    """One input of one engine.

    Attributes:
        at_us: true time, in microseconds since the world began.
        own_us: the same by the clock of the node.
        now_ms: what that clock says to the engine.
        what: the method of the engine.
        given: what it was given.
        calls: the calls in it, with who asked, in their order; what was enqueued before the node had joined comes then.
        joins, joined: whether the node became a member in it; whether it is one now.
        done_count: so many of the effects are carried out, since the process ends then; None: all are.
        entries: what was decided, each with the name of its slice.
    """

    at_us: int
    own_us: int
    now_ms: int
    node: str
    what: str
    given: Any
    calls: list[tuple[Asker, Call | GiveUp]] = field(default_factory=list[tuple[Asker, Call | GiveUp]])
    entries: list[tuple[str, Entry]] = field(default_factory=list[tuple[str, Entry]])
    effects: list[Effect] = field(default_factory=list[Effect])
    joins: bool = False
    joined: bool = True
    done_count: int | None = None

    def answers(self) -> dict[Asker, list[Answer]]:
        """Who was answered, and what; the parts of a long list are put together."""
        found: dict[Asker, list[Answer]] = {}
        parts: dict[Asker, list[Any]] = {}
        for effect in self.effects[: self.done_count]:
            if isinstance(effect, Reply):
                found.setdefault(effect.ref, []).append(effect.answer)
            elif isinstance(effect, Send):
                for message in effect.frame.messages:
                    if isinstance(message, Response):
                        asker = (effect.to, message.ref)
                        answer = message.answer
                        if isinstance(answer, Listed):
                            jobs = parts.setdefault(asker, [])
                            jobs += answer.jobs
                            if message.more:
                                continue
                            answer = Listed(parts.pop(asker), answer.total)
                        found.setdefault(asker, []).append(answer)
        return found

    @property
    def is_about_jobs(self) -> bool:
        """Whether a caller, a job or an executor has a part in it."""
        return bool(self.calls or self.entries) or any(map(_is_about_jobs, self.effects))

    def lines(self, most: int = _LIST_MAX_COUNT) -> Iterator[str]:
        """The step as it is told; of a list, the first `most` items."""
        yield f"{self.at_us / 1000:>11.3f} → {self.node} {self.what} {text(self.given, most)}".rstrip()
        for name, entry in self.entries:
            yield f"{'':>11} · {name}: {text(entry, most)}"
        for effect in self.effects:
            yield from (f"{'':>11} {told}" for told in _effect_lines(effect, most))


def _is_about_jobs(effect: Effect) -> bool:
    if isinstance(effect, Tell):
        return not isinstance(effect.fact, _OF_MEMBERS)
    if isinstance(effect, Send):
        return any(isinstance(message, Response) for message in effect.frame.messages)
    return isinstance(effect, (Reply, Start, Stop))


def _effect_lines(effect: Effect, most: int) -> Iterator[str]:
    if isinstance(effect, Tell):
        said = line(effect.fact)
        yield said[1].partition("\n")[0] if said is not None else f"· {text(effect.fact, most)}"
    elif isinstance(effect, Start):
        for run in effect.runs:
            yield f"← start {_run_text(run)}"
    elif isinstance(effect, Send):
        yield f"← to {text(effect.to)}: {_frame_text(effect.frame, most)}"
    elif isinstance(effect, Knock):
        yield f"← knock at {effect.endpoint}: {_frame_text(effect.frame, most)}"
    elif isinstance(effect, (Connect, Probe)):
        yield f"← {type(effect).__name__.lower()} {effect.member.name} {text(effect.member.life)}"
    elif isinstance(effect, Disconnect):
        yield f"← disconnect {text(effect.life)}"
    elif isinstance(effect, Stop):
        yield f"← stop {job_name(effect.job)}"
    elif isinstance(effect, Persist):
        yield f"← persist {effect.ticket}: {text(effect.steps, most)}"
    else:
        yield f"← reply {effect.ref}: {text(effect.answer, most)}"


def _frame_text(frame: Frame, most: int) -> str:
    numbered = f" from {frame.first}: {text(frame.numbered, most)}" if frame.numbered else ""
    return f"{text(frame.messages, most)}{numbered} ack={frame.ack}"


def _run_text(run: Run) -> str:
    number = f" round={run.number}" if run.number else ""
    return f"{run.header.task} {job_name(run.job)} attempt={run.attempt} tries={run.tries}{number}"


def job_name(job: JobId) -> str:
    """The full id, as people see it and as a story is searched for it."""
    return f"{job:032x}"


def text(value: Any, most: int = _LIST_MAX_COUNT) -> str:
    """A value for people: ids in hexadecimal, long things cut short. The same in each process."""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, Life):
        return f"{value.node.hex()[:6]}-{value.boot % 1000:03}.{value.life}"
    if isinstance(value, Member):
        return f"{value.name} {text(value.life)}"
    if isinstance(value, Rumour):
        return f"<{text(value.member)} {value.standing.value} count={value.count} joined={value.joined}>"
    if isinstance(value, Header):
        return f"{value.task}/{value.scope}/{value.priority}"
    if isinstance(value, bytes):
        return f"{len(value)}B:{value[:_BYTES_MAX].hex()}"
    if isinstance(value, int) and not isinstance(value, bool) and value >> _JOB_BITS_MIN > 0:
        return job_name(JobId(value))
    if is_dataclass(value) and not isinstance(value, type):
        shown = ((one.name, getattr(value, one.name)) for one in fields(value) if _differs(value, one))
        return f"{type(value).__name__}({' '.join(f'{name}={text(item, most)}' for name, item in shown)})"
    if isinstance(value, dict):
        pairs = cast("Any", value).items()
        return "{" + _several((f"{text(key, most)}: {text(item, most)}" for key, item in pairs), most) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + _several((text(item, most) for item in cast("Any", value)), most) + "]"
    return "" if value is None else str(value)


def _differs(value: Any, one: Any) -> bool:
    """Whether a field says more than its default."""
    return bool(getattr(value, one.name) != one.default)


def _several(told: Iterable[str], most: int) -> str:
    items = list(told)
    more = len(items) - most
    return ", ".join(items if more <= 0 else [*items[:most], f"and {more} more"])


class BrokenPromise(Exception):
    """The engine did what it must not do, or failed to do what it must.

    Attributes:
        what: which promise, and how it was broken.
        subjects: texts to search the story for: the id of a job, the name of a task.
        story: the last lines of the world that mention one of them.
    """

    def __init__(self, what: str, *subjects: JobId | str) -> None:
        super().__init__(what)
        self.what = what
        self.subjects = [subject if isinstance(subject, str) else job_name(subject) for subject in subjects]
        self.story: list[str] = []

    def tell(self, steps: Sequence[Step]) -> None:
        """Add the story: of each step that mentions a subject, its first line and those that do; and the last step."""
        for step in steps:
            told = list(zip(step.lines(), step.lines(sys.maxsize), strict=True))
            about = [self._excerpt(short, whole) for short, whole in told if self._mentions(whole)]
            if about:
                first = told[0][0]
                self.story += about if self._mentions(told[0][1]) else [first, *about]
        if len(self.story) > _STORY_FIRST_COUNT + _STORY_MAX_COUNT:
            left_out = len(self.story) - _STORY_FIRST_COUNT - _STORY_MAX_COUNT
            self.story[_STORY_FIRST_COUNT:-_STORY_MAX_COUNT] = [f"{'':>11} ... {left_out} lines left out"]
        if steps:
            last = list(steps[-1].lines())[:_STORY_MAX_COUNT]
            self.story += [told for told in last if told not in self.story]

    def _mentions(self, told: str) -> bool:
        return any(subject in told for subject in self.subjects)

    def _excerpt(self, short: str, whole: str) -> str:
        """The short form of a line, or, where that leaves all subjects out, the long one around the first of them."""
        if self._mentions(short[:_LINE_MAX_CHARS]):
            return short[:_LINE_MAX_CHARS]
        at = min(found for subject in self.subjects if (found := whole.find(subject)) >= 0)
        before, behind = _AROUND_CHARS
        return f"{short[:before]} ... {whole[max(before, at - before) : at + behind]} ..."

    def __str__(self) -> str:
        return "\n".join([self.what, *self.story])
