"""What the core wants from the world, and the outbox in which protocols leave it.

Few, plain, batched. All protocols append to one shared `Outbox`; the engine drains it at the end of each input and
returns the list, so a caller can't forget to flush.
"""

from __future__ import annotations

from dataclasses import dataclass

from .facts import Fact
from .messages import Answer, Message, Response
from .values import JobId, Life, Run


@dataclass(slots=True)
class Send:
    """Say this to that process. A wish: it may get lost."""

    to: Life
    messages: list[Message]


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
class Tell:
    """Let people know."""

    fact: Fact


Effect = Send | Start | Stop | Reply | Tell


Asker = int | tuple[Life, int]
"""Who asked: a call of the own process by its ref, or a client and its ref."""


class Outbox:
    """Effects of one input, in order; starts and messages to one process are merged.

    Bound: what one input can cause.
    """

    __slots__ = ("_effects", "_sends", "_starts", "listening")

    def __init__(self) -> None:
        self.listening = True  # whether facts about jobs that go well are worth their making
        self._effects: list[Effect] = []
        self._sends: dict[Life, list[Message]] = {}
        self._starts: list[Run] = []

    def send(self, to: Life, message: Message) -> None:
        self._sends.setdefault(to, []).append(message)

    def start(self, run: Run) -> None:
        self._starts.append(run)

    def stop(self, job: JobId) -> None:
        self._effects.append(Stop(job))

    def answer(self, asker: Asker, answer: Answer, *, more: bool = False) -> None:
        """To whoever asked; `more`: another part follows."""
        if isinstance(asker, int):
            self._effects.append(Reply(asker, answer))
        else:
            self.send(asker[0], Response(asker[1], answer, more))

    def tell(self, fact: Fact) -> None:
        self._effects.append(Tell(fact))

    def drain(self) -> list[Effect]:
        """Everything since the last drain: replies, stops and facts, then messages, then starts."""
        effects = self._effects
        if self._sends:
            effects.extend(Send(to, messages) for to, messages in self._sends.items())
            self._sends = {}
        if self._starts:
            effects.append(Start(self._starts))
            self._starts = []
        self._effects = []
        return effects
