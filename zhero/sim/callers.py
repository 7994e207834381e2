"""Those who ask a node for something: code in its own process, and clients over the network.

A client does what a bad day makes clients do: it says the same again when no answer comes, in a frame of the same
bytes; it loses its connection and comes back, or does not; it says two things at once, or one thing twice, or what
makes no sense, or bytes that are no frame.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Protocol

from ..core.messages import (
    Accepted,
    Answer,
    AwaitResult,
    Call,
    Cancel,
    Did,
    Enqueue,
    FindJob,
    Frame,
    GiveUp,
    Hello,
    Leave,
    Message,
    Rejected,
    Request,
    Response,
    Welcome,
)
from ..core.values import IdSource, Life, Member, NodeId
from .network import Channel, Network
from .workload import Workload

Later = Callable[[int, Callable[[], None]], None]
"""Microseconds from now, and what is to be done then."""

_PATIENCE_US = (300_000, 3_000_000)
_AGAIN_MAX_COUNT = 3


class Callee(Protocol):
    """A node, for code in its own process."""

    def call(self, ref: int, call: Call) -> None:
        """The answer comes through `LocalCaller.on_reply`."""
        ...

    def give_up(self, ref: int) -> None:
        """Nobody waits for it any more."""
        ...


class LocalCaller:
    """Code in the process of the node."""

    def __init__(
        self, node: Callee, workload: Workload, rng: Random, later: Later, pace_ms: int, seen: Counter[str]
    ) -> None:
        self.asking = False
        self.answers: dict[int, Answer] = {}
        self._node = node
        self._workload = workload
        self._rng = rng
        self._later = later
        self._pace_ms = pace_ms
        self._seen = seen
        self._ids = IdSource(rng.getrandbits(64))
        self._ref = 0
        self._open: dict[int, Call] = {}

    def start(self) -> None:
        """Ask on and on, until `asking` is off."""
        self.asking = True
        self._go_on()

    def ask(self, call: Call) -> int:
        """Ask now.

        Returns:
            The reference under which `answers` has the answer, when it is there.
        """
        self._ref = ref = self._ref + 1
        self._open[ref] = call
        self._node.call(ref, call)
        if ref in self._open and isinstance(call, AwaitResult) and self._rng.random() < 0.2:
            self._later(self._rng.randint(0, 2_000_000), lambda: self._give_up(ref))
        return ref

    def ids(self) -> IdSource:
        """Where its jobs have their ids from."""
        return self._ids

    def on_reply(self, ref: int, answer: Answer) -> None:
        """What it asked for is answered."""
        call = self._open.pop(ref, None)
        if call is None:
            return  # it gave up in the moment of the answer
        self.answers[ref] = answer
        self._workload.note(call, answer)
        if isinstance(answer, Accepted) and self.asking and self._rng.random() < 0.3:
            job = self._rng.choice(answer.jobs)
            self._later(self._rng.randint(0, 3_000), lambda: self._follow(AwaitResult(job)))

    def _follow(self, call: Call) -> None:
        if self.asking:
            self.ask(call)

    def _go_on(self) -> None:
        if not self.asking:
            return
        self.ask(self._workload.draw(self._ids))
        self._later(int(self._rng.expovariate(1) * self._pace_ms * 1000), self._go_on)

    def _give_up(self, ref: int) -> None:
        if self._open.pop(ref, None) is not None:
            self._seen["caller gave up"] += 1
            self._node.give_up(ref)


class Client:
    """A program that is no member, over the network: it speaks to whoever listens at one endpoint, for a while.

    Args:
        endpoints: where it may find somebody; when it has not been answered it tries another one, and asks there for
            something else, since what it has asked for before may have been taken.

    Attributes:
        place: of its own; nobody listens there.
    """

    is_stopped = False

    def __init__(
        self,
        name: str,
        endpoints: list[str],
        workload: Workload,
        network: Network,
        rng: Random,
        later: Later,
        pace_ms: int,
        seen: Counter[str],
    ) -> None:
        self.place = name
        self.life = Life(NodeId(rng.randbytes(16)), rng.randint(1, 1 << 40), 0)
        self._endpoints = endpoints
        self._endpoint = rng.choice(endpoints)
        self._workload = workload
        self._network = network
        self._rng = rng
        self._later = later
        self._pace_ms = pace_ms
        self._seen = seen
        self._ids = IdSource(rng.getrandbits(64))
        self._ref = 0
        self._open: dict[int, Call] = {}
        self._channel: Channel | None = None
        self._met: Life | None = None  # who listens there, as far as it knows
        self._asking = False
        self._gone = False

    def start(self) -> None:
        """Come, and ask on and on."""
        self._asking = True
        self._come()
        self._go_on()

    def stop(self) -> None:
        """Ask for nothing new."""
        self._asking = False

    def receive(self, frame: Frame) -> None:
        """Something comes back."""
        for message in frame.messages:
            if isinstance(message, Response) and not message.more:
                call = self._open.pop(message.ref, None)
                if call is not None:
                    self._workload.note(call, message.answer)
            elif isinstance(message, Welcome):
                self._seen["welcome"] += 1
                self._met = message.member.life

    def _come(self) -> None:
        if not self._gone:
            self._leave()
            self._channel = self._network.open(self, self._endpoint, self._forget, self.receive)
            self._say([Hello()])

    def _leave(self) -> None:
        """Its connection is over, and whoever it led to need not be there any more."""
        self._met = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _forget(self) -> None:
        """Whoever it spoke to may be gone: from now on it speaks to whoever listens there."""
        self._met = None

    def _say(self, messages: list[Message]) -> None:
        if self._channel is not None:
            self._channel.send(Frame(self.life, self._met, messages))

    def _go_on(self) -> None:
        if not self._asking:
            return
        self._act()
        self._later(int(self._rng.expovariate(1) * self._pace_ms * 2000), self._go_on)

    def _act(self) -> None:
        chance = self._rng.random()
        if chance < 0.03:
            self._break()
        elif chance < 0.06:
            self._seen["garbage"] += 1
            frame = Frame(self.life, self._met, [Request(0, self._workload.draw(self._ids))])
            if self._channel is not None:
                self._channel.send_bytes(self._network.spoil(frame))
        elif chance < 0.08:
            self._seen["senseless message"] += 1
            self._say([self._senseless()])
        else:
            self._ask()

    def _ask(self) -> None:
        call = self._workload.draw(self._ids)
        messages: list[Message] = [self._request(call)]
        if isinstance(call, Enqueue) and call.jobs and self._rng.random() < 0.2:
            job = self._rng.choice(call.jobs)[0]
            messages += [
                self._request(FindJob(job)),
                self._request(self._rng.choice((Cancel(job), AwaitResult(job)))),
            ]
            self._seen["several messages in a frame"] += 1
        self._say(messages)
        if self._rng.random() < 0.04:
            self._seen["frame said twice"] += 1
            self._say(messages)
        self._expect(messages, 0)

    def _request(self, call: Call) -> Request:
        self._ref += 1
        self._open[self._ref] = call
        return Request(self._ref, call)

    def _expect(self, messages: list[Message], again: int) -> None:
        """Say it once more if there is no answer in time, and some day do without."""
        self._later(self._rng.randint(*_PATIENCE_US), lambda: self._look(messages, again))

    def _look(self, messages: list[Message], again: int) -> None:
        late = [message for message in messages if isinstance(message, Request) and message.ref in self._open]
        if not late or self._gone:
            return
        if again < _AGAIN_MAX_COUNT:
            self._seen["client repeats"] += 1
            self._say([*late])
            self._expect(messages, again + 1)
        else:
            self._say([GiveUp(message.ref) for message in late])
            for message in late:
                del self._open[message.ref]
            self._seen["client gave up"] += 1
            if self._rng.random() < 0.3:
                self._move()

    def _move(self) -> None:
        """Whoever it knew may be gone."""
        if len(self._endpoints) > 1:
            self._endpoint = self._rng.choice(self._endpoints)
            self._open.clear()
            self._ids = IdSource(self._rng.getrandbits(64))
        self._come()

    def _break(self) -> None:
        """The connection is lost, and at times the client with it."""
        self._leave()
        if self._rng.random() < 0.2:
            self._gone, self._asking = True, False
            self._seen["client vanished"] += 1
        else:
            self._seen["connection lost"] += 1
            self._later(self._rng.randint(1_000, 1_500_000), self._come)

    def _senseless(self) -> Message:
        me = Member(self.life, "client", "", 1, "0")
        return self._rng.choice(
            (
                Response(self._ref, Did(True)),
                Welcome(me, 1),
                Rejected("no"),
                Request(self._ref + 1_000_000, Leave(0)),
                GiveUp(self._ref + 1_000_000),
            )
        )
