"""Carries frames between processes as ZeroMQ does, losing what it loses, and a little more.

An endpoint belongs to a place, and a place may have one process after another. A `Channel` is what one process has to
say to an endpoint: while nobody listens there it is kept, and the next one who listens there gets it, whoever that
is. When its connection breaks, part of what was under way is lost, and the rest is said again over the next one. A
`Subscription` is what one process wants to hear of those who publish at an endpoint; it takes a while, and what is
published meanwhile, above a bound, or in a bad moment, is not heard. Every frame passes through the real codec;
bytes that are no frame are counted and dropped, as a node does.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Protocol

from .. import wire
from ..core.messages import Frame
from ..core.values import Life
from ..errors import ZheroError
from .story import BrokenPromise
from .wires import Load, Pipe, Ways

CHANNEL_MAX_COUNT = 1_000
"""Frames that wait in a channel or are under way on it; what comes then is dropped."""
BEATS_MAX_COUNT = 100
"""Beats that are under way to one subscriber; the same."""
LINGER_US = 200_000
_DIAL_US = (200, 10_000)
_REDIAL_US = (100_000, 400_000)
_SLOW_JOIN_US = 300_000
_PROBE_US = 1_000_000
_HINT_US = (100, 50_000)
_LATE_HINT_US = 5_000_000


class Process(Protocol):
    """One end of a connection."""

    @property
    def place(self) -> str:
        """Where it runs."""
        ...

    @property
    def is_stopped(self) -> bool:
        """Whether it does nothing at the moment, not even shake hands."""
        ...

    def receive(self, frame: Frame) -> None:
        """A frame arrives at its inbox."""
        ...


def place_of(endpoint: str) -> str:
    """The place that an endpoint belongs to."""
    return endpoint.removeprefix("tcp://").partition(":")[0]


class Network:
    """All connections of one world."""

    def __init__(self, ways: Ways, cluster: str, seen: Counter[str]) -> None:
        self.ways = ways
        self.seen = seen
        self.garbage_count = 0
        self.lost_count = 0
        self.advertised: dict[str, None] = {}  # endpoints of proxies: what they refuse shows nothing
        self.losses: dict[tuple[str, str], list[int]] = {}  # places, in order -> when a connection broke
        self._tag = wire.cluster_tag(cluster)
        self._listeners: dict[str, Process] = {}
        self._channels: list[Channel] = []
        self._subscriptions: list[Subscription] = []
        self._heard: dict[int, dict[Life, Channel]] = {}  # process -> who has spoken to it, and over what

    # --- processes ------------------------------------------------------------------------------------------------

    def listen(self, endpoint: str, process: Process) -> None:
        """A process is there."""
        self._listeners[endpoint] = process

    def listener(self, endpoint: str) -> Process | None:
        return self._listeners.get(endpoint)

    def end(self, process: Process, *, killed: bool) -> None:
        """A process is gone; what it had said is on its way, or, if it was killed, only some of that."""
        for endpoint in [endpoint for endpoint, one in self._listeners.items() if one is process]:
            del self._listeners[endpoint]
        self._heard.pop(id(process), None)
        for channel in self._channels[:]:
            if channel.owner is process:
                channel.end(killed=killed)
            elif channel.listener is process:
                channel.lose()
        for subscription in self._subscriptions[:]:
            if subscription.owner is process:
                subscription.close()
            elif subscription.publisher is process:
                subscription.lose()

    def lose(self, one: str, other: str) -> None:
        """Connections between two places break."""
        pair = (min(one, other), max(one, other))
        self.losses.setdefault(pair, []).append(self.ways.now_us())
        links: list[Channel | Subscription] = [*self._channels, *self._subscriptions]
        for link in links:
            if link.joins(one, other) and self.ways.rng.random() < 0.7:
                link.lose()

    # --- talk -----------------------------------------------------------------------------------------------------

    def open(
        self,
        owner: Process,
        endpoint: str,
        on_lost: Callable[[], None],
        hear: Callable[[Frame], None] | None = None,
    ) -> Channel:
        """A way to say something there; `hear`: what comes back on it is read."""
        channel = Channel(self, owner, endpoint, on_lost, hear)
        self._channels.append(channel)
        return channel

    def subscribe(
        self, owner: Process, endpoint: str, on_lost: Callable[[], None], hear: Callable[[Frame], None]
    ) -> Subscription:
        """Hear what is published there, some time from now on."""
        subscription = Subscription(self, owner, endpoint, on_lost, hear)
        self._subscriptions.append(subscription)
        return subscription

    def publish(self, process: Process, frame: Frame) -> None:
        """Say it to all who have subscribed to this process."""
        sent: Frame | None = None
        for subscription in self._subscriptions:
            if subscription.publisher is process:
                sent = self.through_codec(frame) if sent is None else sent
                subscription.write(sent)

    def answer(self, process: Process, to: Life, frame: Frame) -> None:
        """Say it to a client, over what it has last spoken on."""
        channel = self._heard.get(id(process), {}).get(to)
        if channel is None or channel.back is None:
            self.lost_count += 1
        else:
            channel.back.write(self.through_codec(frame))

    def probe(self, owner: Process, endpoint: str, tell: Callable[[bool], None]) -> None:
        """Try a plain connect, and tell whether it was refused."""
        ways = self.ways
        place = place_of(endpoint)
        if not ways.reaches_and_back(owner.place, place):
            self.seen["probe without an answer"] += 1
            ways.later(ways.rng.randint(_PROBE_US // 2, _PROBE_US), lambda: tell(False))
            return

        def arrive() -> None:
            refused = endpoint not in self._listeners
            if endpoint in self.advertised:
                refused = ways.rng.random() < 0.5
            self.seen["probe refused" if refused else "probe accepted"] += 1
            tell(refused)

        ways.later(min(_PROBE_US, 2 * ways.delay_us()), arrive)

    # --- what channels need ---------------------------------------------------------------------------------------

    def through_codec(self, frame: Frame) -> Frame:
        """The frame as it is read at the other end."""
        read = wire.decode(wire.encode(frame, self._tag), self._tag)
        if read != frame:
            raise BrokenPromise(f"the codec changes {frame}")
        return read

    def spoil(self, frame: Frame) -> bytes:
        """A frame with some of its bytes changed, missing or added."""
        rng = self.ways.rng
        data = bytearray(wire.encode(frame, self._tag))
        place = rng.randrange(len(data))
        how = rng.randrange(4)
        if how == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif how == 1:
            del data[place:]
        elif how == 2:
            data += rng.randbytes(5)
        else:
            data = bytearray(rng.randbytes(place))
        return bytes(data)

    def arrive(self, channel: Channel, listener: Process, load: Load) -> None:
        """Something arrives at an inbox."""
        frame = load if isinstance(load, Frame) else self._read(load)
        if frame is not None:
            heard = self._heard.setdefault(id(listener), {})
            heard[frame.sender] = channel
            listener.receive(frame)

    def _read(self, data: bytes) -> Frame | None:
        try:
            return wire.decode(data, self._tag)
        except ZheroError:
            self.garbage_count += 1
            return None

    def hint(self, source: str, target: str, on_lost: Callable[[], None]) -> None:
        """The end of a connection shows at its other end: soon, late, or never."""
        rng = self.ways.rng
        chance = rng.random()
        if not self.ways.reaches(source, target) or chance < 0.05:
            self.seen["end of a connection never seen"] += 1
        elif chance < 0.15:
            self.seen["end of a connection seen late"] += 1
            self.ways.later(rng.randint(_HINT_US[1], _LATE_HINT_US), on_lost)
        else:
            self.ways.later(rng.randint(*_HINT_US), on_lost)

    def forget(self, link: Channel | Subscription) -> None:
        if isinstance(link, Channel):
            self._channels.remove(link)
        else:
            self._subscriptions.remove(link)


class Channel:
    """What one process has to say to an endpoint, and the connection under it.

    Attributes:
        listener: whom the present connection leads to; None: there is none.
        back: the other way of the present connection.
    """

    def __init__(
        self,
        network: Network,
        owner: Process,
        endpoint: str,
        on_lost: Callable[[], None],
        hear: Callable[[Frame], None] | None,
    ) -> None:
        self.owner = owner
        self.endpoint = endpoint
        self.listener: Process | None = None
        self.back: Pipe | None = None
        self._network = network
        self._ways = network.ways
        self._on_lost = on_lost
        self._hear = hear
        self._waiting: deque[Load] = deque()
        self._pipe: Pipe | None = None
        self._closed = False
        self._was_up = False
        self._dial_later(_DIAL_US)

    def send(self, frame: Frame) -> None:
        """Say it, now or when somebody listens."""
        self.send_bytes(self._network.through_codec(frame))

    def send_bytes(self, load: Load) -> None:
        """The same with any bytes."""
        under_way = len(self._waiting) + (len(self._pipe.flying) if self._pipe is not None else 0)
        if self._closed:
            self._network.lost_count += 1
        elif under_way >= CHANNEL_MAX_COUNT:
            self._network.lost_count += 1
            self._network.seen["channel full"] += 1
        elif self._pipe is not None:
            self._pipe.write(load)
        else:
            self._waiting.append(load)

    def lose(self) -> None:
        """The connection breaks: what was under way is lost, or only the first of it."""
        pipe, listener = self._pipe, self.listener
        if pipe is None or listener is None:
            return
        rest = pipe.shut()
        if self.back is not None:
            self.back.shut()
        lost_count = len(rest) if self._ways.rng.random() < 0.5 else self._ways.rng.randint(0, len(rest))
        self._network.lost_count += lost_count
        self._waiting.extend(rest[lost_count:])
        self._pipe, self.back, self.listener = None, None, None
        if not self._closed:
            self._network.hint(listener.place, self.owner.place, self._on_lost)
            self._dial_later(_REDIAL_US)

    def end(self, *, killed: bool) -> None:
        """Its process is gone."""
        if killed:
            self.close()
        else:
            self.linger()

    def linger(self) -> None:
        """Nothing more will be said; what has been gets a moment to leave."""
        self._ways.later(LINGER_US, self.close)

    def close(self) -> None:
        """The connection ends; of what is under way, some still arrives."""
        if self._closed:
            return
        self._closed = True
        if self._pipe is not None:
            self._network.lost_count += len(self._pipe.shut(self._ways.rng.randint(0, len(self._pipe.flying))))
        if self.back is not None:
            self.back.shut()
        self._waiting.clear()
        self._network.forget(self)

    def joins(self, one: str, other: str) -> bool:
        """Whether it connects the two places."""
        return self.listener is not None and {self.owner.place, self.listener.place} == {one, other}

    def _dial_later(self, span_us: tuple[int, int]) -> None:
        self._ways.later(self._ways.rng.randint(*span_us), self._dial)

    def _dial(self) -> None:
        if self._closed or self._pipe is not None:
            return
        listener = self._network.listener(self.endpoint)
        if listener is None or not _can_meet(self._ways, self.owner, listener):
            self._dial_later(_REDIAL_US)
            return
        if self._waiting and self._was_up:
            self._network.seen["said again over the next connection"] += 1
        self._was_up = True
        self.listener = listener
        self._pipe = Pipe(
            self._ways, self.owner.place, listener.place, lambda load: self._network.arrive(self, listener, load)
        )
        if self._hear is not None:
            self.back = Pipe(self._ways, listener.place, self.owner.place, self._come_back)
        while self._waiting:
            self._pipe.write(self._waiting.popleft())

    def _come_back(self, load: Load) -> None:
        if self._hear is not None and isinstance(load, Frame):
            self._hear(load)


class Subscription:
    """What one process wants to hear of whoever publishes at an endpoint."""

    def __init__(
        self,
        network: Network,
        owner: Process,
        endpoint: str,
        on_lost: Callable[[], None],
        hear: Callable[[Frame], None],
    ) -> None:
        self.owner = owner
        self.endpoint = endpoint
        self.publisher: Process | None = None
        self._network = network
        self._ways = network.ways
        self._on_lost = on_lost
        self._hear = hear
        self._pipe: Pipe | None = None
        self._closed = False
        self._dial_later(_DIAL_US)

    def write(self, frame: Frame) -> None:
        """It has been published."""
        if self._pipe is None:
            return
        if len(self._pipe.flying) >= BEATS_MAX_COUNT:
            self._network.seen["beat above the bound"] += 1
        elif self._ways.rng.random() < self._ways.weather.drop_share:
            self._network.seen["beat dropped"] += 1
        else:
            self._pipe.write(frame)

    def lose(self) -> None:
        """The connection breaks, with all that is on it."""
        publisher = self.publisher
        if self._pipe is None or publisher is None:
            return
        self._pipe.shut(self._ways.rng.randint(0, len(self._pipe.flying)))
        self._pipe, self.publisher = None, None
        self._network.hint(publisher.place, self.owner.place, self._on_lost)
        self._dial_later(_REDIAL_US)

    def close(self) -> None:
        """Nobody wants to hear it any more."""
        if self._closed:
            return
        self._closed = True
        if self._pipe is not None:
            self._pipe.shut()
        self.publisher = None
        self._network.forget(self)

    def joins(self, one: str, other: str) -> bool:
        """Whether it connects the two places."""
        return self.publisher is not None and {self.owner.place, self.publisher.place} == {one, other}

    def _dial_later(self, span_us: tuple[int, int]) -> None:
        self._ways.later(self._ways.rng.randint(*span_us), self._dial)

    def _dial(self) -> None:
        """Connect, and be heard as a subscriber a while later."""
        if self._closed or self._pipe is not None:
            return
        publisher = self._network.listener(self.endpoint)
        if publisher is None or not _can_meet(self._ways, self.owner, publisher):
            self._dial_later(_REDIAL_US)
            return
        rng = self._ways.rng
        slow_us = rng.randint(0, _SLOW_JOIN_US) if rng.random() < 0.3 else rng.randint(*_DIAL_US)
        self._ways.later(slow_us, lambda: self._join(publisher))

    def _join(self, publisher: Process) -> None:
        if self._closed or self._pipe is not None:
            return
        if self._network.listener(self.endpoint) is not publisher:
            self._dial_later(_REDIAL_US)
            return
        self.publisher = publisher
        self._pipe = Pipe(self._ways, publisher.place, self.owner.place, self._arrive)

    def _arrive(self, load: Load) -> None:
        if isinstance(load, Frame):
            self._hear(load)


def _can_meet(ways: Ways, one: Process, other: Process) -> bool:
    """Whether they can shake hands now."""
    return not (one.is_stopped or other.is_stopped) and ways.reaches_and_back(one.place, other.place)
