"""The reliable link: what is posted arrives once and in order, and does not wait for longer than it has to."""

from __future__ import annotations

from itertools import pairwise

from tests.unit.cluster import Cluster
from zhero.config import PROFILES
from zhero.core.effects import Outbox, Send
from zhero.core.link import RESEND_MAX_TIMES, STALE_SHARE, Link
from zhero.core.messages import Counted, CountJobs, Frame, Message, Ping
from zhero.core.values import Life, NodeId

LAN = PROFILES["lan"]
STALE_MS = LAN.resend_ms // STALE_SHARE
HERE, THERE = Life(NodeId(b"h" * 16), 1, 0), Life(NodeId(b"t" * 16), 2, 0)


class End:
    """One end of a link, and what it says."""

    def __init__(self, me: Life, other: Life) -> None:
        self.outbox = Outbox()
        self.link = Link(me, LAN, self.outbox)
        self.link.open(other)
        self.other = other
        self.heard: list[Message] = []

    def post(self, number: int, now_ms: int) -> list[Frame]:
        self.outbox.post(self.other, Ping(number))
        return self.pack(now_ms)

    def pack(self, now_ms: int) -> list[Frame]:
        self.link.pack(now_ms)
        self.link.check()
        return [effect.frame for effect in self.outbox.drain() if isinstance(effect, Send)]

    def hear(self, frames: list[Frame], now_ms: int) -> list[Frame]:
        for frame in frames:
            self.heard += self.link.receive(frame, now_ms)
        return self.pack(now_ms)


def pair() -> tuple[End, End]:
    return End(HERE, THERE), End(THERE, HERE)


def receipt(ack: int) -> list[Frame]:
    return [Frame(THERE, HERE, [], [], 0, ack)]


def test_what_is_lost_is_said_again_less_and_less_often() -> None:
    here, _ = pair()
    here.post(1, 0)
    said_at_ms = [0]
    while len(said_at_ms) < 7:
        deadline_ms = here.link.deadline_ms()
        assert deadline_ms is not None
        assert here.pack(deadline_ms - 1) == []
        assert [frame.numbered for frame in here.pack(deadline_ms)] == [[Ping(1)]]
        said_at_ms.append(deadline_ms)
    spans_ms = [after - before for before, after in pairwise(said_at_ms)]
    assert spans_ms == [LAN.resend_ms * times for times in (1, 2, 4, 8, 8, 8)]


def test_a_link_that_has_rested_goes_on_with_the_first_new_message() -> None:
    here, there = pair()
    here.post(1, 0)
    now_ms = 0
    for _ in range(6):  # nothing arrives, so that the next try is far away
        now_ms = here.link.deadline_ms() or 0
        here.pack(now_ms)
    now_ms += LAN.resend_ms * RESEND_MAX_TIMES // 2
    gap = there.hear(here.post(2, now_ms), now_ms)
    assert there.heard == []
    assert [(frame.numbered, frame.ack) for frame in gap] == [([], 0)]
    there.hear(here.hear(gap, now_ms), now_ms)
    assert there.heard == [Ping(1), Ping(2)]


def test_a_receipt_without_news_counts_only_when_it_can_have_crossed_nothing() -> None:
    here, _ = pair()
    here.post(1, 0)
    assert here.hear(receipt(0), STALE_MS - 1) == []
    assert [frame.numbered for frame in here.hear(receipt(0), STALE_MS)] == [[Ping(1)]]
    assert here.hear(receipt(0), 2 * STALE_MS - 1) == []
    assert [frame.numbered for frame in here.hear(receipt(0), 2 * STALE_MS)] == [[Ping(1)]]


def test_a_receipt_with_news_leaves_the_rest_its_time() -> None:
    here, _ = pair()
    here.post(1, 0)
    here.post(2, STALE_MS)
    assert here.hear(receipt(1), STALE_MS) == []
    assert here.hear(receipt(1), 2 * STALE_MS - 1) == []
    assert [frame.numbered for frame in here.hear(receipt(1), 2 * STALE_MS)] == [[Ping(2)]]


def test_messages_the_other_way_show_a_loss_only_after_the_usual_time() -> None:
    here, there = pair()
    here.post(1, 0)
    assert not any(frame.numbered for frame in here.hear(there.post(1, 0), LAN.resend_ms - 1))
    here.link.receive(Frame(THERE, HERE, [], [Ping(2)], 2, 0), LAN.resend_ms)
    assert [frame.numbered for frame in here.pack(LAN.resend_ms)] == [[Ping(1)]]


def test_what_is_said_to_all_is_no_receipt() -> None:
    here, _ = pair()
    here.post(1, 0)
    assert here.hear([Frame(THERE, None, [Ping(9)])], LAN.resend_ms - 1) == []


def test_a_receipt_without_news_is_nothing_to_one_that_has_said_nothing() -> None:
    here, _ = pair()
    assert here.hear(receipt(0), 10_000) == []
    here.post(1, 10_000)
    here.hear(receipt(1), 10_010)
    assert here.hear(receipt(1), 20_000) == []
    assert here.link.deadline_ms() is None


def test_a_question_right_after_a_cut_is_answered_by_all() -> None:
    cluster = Cluster()
    a, _, _ = cluster.start("a"), cluster.start("b", "a"), cluster.start("c", "a")
    cluster.run(3_000)
    for cut_ms in (10_000, 13_000, 17_000):
        cluster.cut("a", "c")
        a.ask(CountJobs())
        cluster.run(cut_ms)
        cluster.heal()
        ref = a.ask(CountJobs())
        cluster.run(LAN.answer_ms + 10)
        counted = a.replies[ref]
        assert isinstance(counted, Counted)
        assert counted.silent == []
