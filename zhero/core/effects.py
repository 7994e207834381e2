"""What the core wants from the world, and the outbox in which protocols leave it.

Few, plain, batched. All protocols append to one shared `Outbox`; the engine drains it at the end of each input and
returns the list, so a caller can't forget to flush.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .facts import Fact
from .kept import Step
from .messages import Answer, Answered, Frame, Message, Response, about_bytes
from .values import JobId, Life, Member, Run


@dataclass(slots=True)
class Send:
    """Say this to the process `frame.to`: a member to which `Connect` was asked for, or a client that has spoken to us.

    A wish: it may get lost.
    """

    to: Life
    frame: Frame


@dataclass(slots=True)
class Knock:
    """Say this to whoever listens at that endpoint. The same: it may get lost."""

    endpoint: str
    frame: Frame


@dataclass(slots=True)
class Connect:
    """From now on there are frames for this member, and its beats are wanted. Again: with other endpoints."""

    member: Member


@dataclass(slots=True)
class Disconnect:
    """No more of this one; what has been said gets a moment to leave."""

    life: Life


@dataclass(slots=True)
class Probe:
    """Try a plain connect to its inbox. The world owes a `probed`, with whether it was *refused*, within a second."""

    member: Member


@dataclass(slots=True)
class Start:
    """Run these. The world owes a `started` and a `finished` for each."""

    runs: list[Run]


@dataclass(slots=True)
class Stop:
    """End this run, if that can be done; the world still owes its `finished`."""

    job: JobId


@dataclass(slots=True)
class Reply:
    """The answer to a call of the own process."""

    ref: int
    answer: Answer


@dataclass(slots=True)
class Persist:
    """Write this to the journal, in the order of tickets, each as a whole. The world owes a `persisted`, or a
    `persist_failed`."""

    ticket: int
    steps: list[Step]


@dataclass(slots=True)
class Tell:
    """Let people know."""

    fact: Fact


Effect = Send | Knock | Connect | Disconnect | Probe | Start | Stop | Reply | Persist | Tell


class Peer(NamedTuple):
    """A member that asks, for itself or for one of its callers."""

    life: Life
    ref: int


Asker = int | tuple[Life, int] | Peer
"""Who asked: a call of the own process by its ref, a client and its ref, or a member and its ref."""


class Outbox:
    """Effects of one input, in order; starts, and what is said to one process, are merged.

    What is to be said waits in `loose` and `posted` until `Link.pack` makes frames of it. Bound: what one input can
    cause.
    """

    __slots__ = ("_effects", "_starts", "listening", "loose", "posted")

    def __init__(self) -> None:
        self.listening = True  # whether facts about jobs that go well are worth their making
        self.loose: dict[Life, list[Message]] = {}
        self.posted: dict[Life, list[tuple[Message, int]]] = {}  # with about how many bytes each takes
        self._effects: list[Effect] = []
        self._starts: list[Run] = []

    def send(self, to: Life, message: Message) -> None:
        """Say it to a member or a client; it may get lost."""
        self.loose.setdefault(to, []).append(message)

    def post(self, to: Life, message: Message, about_bytes: int = 64) -> None:
        """Say it to a member, once and in order with all else that is posted to it, as long as that life is one."""
        self.posted.setdefault(to, []).append((message, about_bytes))

    def start(self, run: Run) -> None:
        self._starts.append(run)

    def stop(self, job: JobId) -> None:
        if self._starts:  # it may be one of these
            self._effects.append(Start(self._starts))
            self._starts = []
        self._effects.append(Stop(job))

    def answer(self, asker: Asker, answer: Answer, *, more: bool = False) -> None:
        """To whoever asked; `more`: another part follows."""
        if isinstance(asker, int):
            self._effects.append(Reply(asker, answer))
        elif isinstance(asker, Peer):
            self.post(asker.life, Answered(asker.ref, answer, more), about_bytes(answer))
        else:
            self.send(asker[0], Response(asker[1], answer, more))

    def tell(self, fact: Fact) -> None:
        self._effects.append(Tell(fact))

    def want(self, effect: Send | Knock | Connect | Disconnect | Probe | Persist) -> None:
        """Something of the network, or of the journal."""
        self._effects.append(effect)

    def drain(self) -> list[Effect]:
        """Everything since the last drain: in the order in which it came, then starts."""
        effects, self._effects = self._effects, []
        if self._starts:
            effects.append(Start(self._starts))
            self._starts = []
        return effects
