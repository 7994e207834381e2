"""Frames to bytes and back: the layout, the golden bytes of each kind, and what is refused.

`golden/` has one frame of each kind. They are what other versions of zhero say, so a change that breaks one breaks
running clusters. For a new kind, add a sample below and run `ZHERO_REWRITE=1 python -m pytest tests/unit/test_wire.py`:
it writes the files that are missing, and those that have changed; look at the diff before you commit it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from msgpack import packb, unpackb

from zhero import wire
from zhero.config import FRAME_MAX_BYTES, MESSAGES_MAX_COUNT
from zhero.core.entries import (
    Adopted,
    Advanced,
    CancelAsked,
    Died,
    Done,
    Dropped,
    Due,
    Entry,
    Imported,
    Lent,
    Moved,
    Orphaned,
    Planned,
    PlanStopped,
    Put,
    Rehomed,
    Returned,
    Revived,
    Spread,
    Waits,
)
from zhero.core.messages import (
    Accepted,
    Answer,
    Answered,
    Ask,
    AskHeld,
    AskStats,
    AskStatus,
    AskTasks,
    AwaitResult,
    Beat,
    Began,
    Call,
    Cancel,
    CannotStop,
    CheckLoans,
    ClusterStatus,
    Copied,
    Counted,
    CountJobs,
    Did,
    Discard,
    Ended,
    Enqueue,
    Entries,
    FindJob,
    Follow,
    Followers,
    Frame,
    GiveBack,
    GiveUp,
    Grant,
    Have,
    Held,
    Hello,
    Hungry,
    IdentityInUse,
    Leave,
    Left,
    Listed,
    ListJobs,
    Loaned,
    MemberStatus,
    Message,
    NotHeld,
    Offer,
    OfferRefused,
    OfferTaken,
    Owns,
    PartEnded,
    Ping,
    PingFor,
    PlanInfo,
    Pong,
    PongFor,
    ProbedFor,
    ProbeFor,
    Recall,
    Received,
    Refusal,
    Refused,
    Rejected,
    Reported,
    Request,
    Response,
    Retry,
    Rumours,
    Sated,
    Settled,
    StartTask,
    Stats,
    StopTask,
    Sync,
    Tasks,
    Took,
    Unfollow,
    Waiting,
    Welcome,
)
from zhero.core.records import Chunk, Plan, Record, Remembered, SpreadOut
from zhero.core.values import (
    Failure,
    Finished,
    Header,
    JobId,
    JobInfo,
    Life,
    Member,
    NodeId,
    Outcome,
    Rumour,
    Run,
    Standing,
    State,
    Status,
    StreamId,
    TaskSpec,
    Verdict,
)
from zhero.errors import ZheroError

GOLDEN = Path(__file__).with_name("golden")
REWRITE = os.environ.get("ZHERO_REWRITE") == "1"

TAG = wire.cluster_tag("garden")
ME = Life(NodeId(bytes(range(16))), 1_800_000_000_000, 1)
PEER = Life(NodeId(b"\xff" * 16), 1_800_000_000_001, 0)
JOB = JobId(0x0123456789ABCDEF << 64 | 1)
MEMBER = Member(ME, "web-1", "tcp://127.0.0.1:7040", 4711, "0.1.0", "tcp://127.0.0.1:7041")
RUMOUR = Rumour(MEMBER, Standing.SUSPECT, 3, 2)
FAILURE = Failure("ValueError", "no such user: Jürgen", "Traceback ...")
OUTCOME = Outcome(Status.SUCCEEDED, b"\xa2ok")
JOB_INFO = JobInfo(
    job=JOB,
    task="send_email",
    scope="any",
    state=State.RUNNING,
    priority=-5,
    params=b"\x81\xa2to\xa3ann",
    attempt=2,
    tries=1,
    enqueued_at_ms=1_800_000_000_100,
    run_at_ms=0,
    started_at_ms=1_800_000_000_200,
    home=ME,
    node=PEER,
    parent=JobId(0),
    number=0,
    outcome=Outcome(Status.FAILED, b"", FAILURE),
)
HEADER = Header("send_email", "any", -5, False, 60_000, 2, True)
STREAM = StreamId("delayed", PEER, 7)
RUN = Run(JOB, HEADER, b"\x80", 2, 1, 3, 1_800_000_000_100, 12)
REPORT = Finished(JOB, 2, Verdict.RETRY, Outcome(Status.FAILED, b"", FAILURE), 5_000)
RECORD = Record(
    JOB, HEADER, b"\x80", 1_800_000_000_100, State.LENT, 2, 1, ME, 0, 0, True, JobId(9), PEER, OUTCOME, True, 1
)
CHUNK = Chunk(
    headers=[HEADER],
    ready=[(JobId(1), bytes(16) + b"\x80")],
    delayed=[(JobId(2), bytes(16))],
    records=[RECORD],
    dead=[Record(JobId(4), HEADER, b"\x80", 1_800_000_000_100, State.DEAD, 3, 3, outcome=Outcome(Status.CRASHED))],
    parts=[SpreadOut(JobId(9), [(JOB, PEER)], [(ME, OUTCOME)])],
    plans=[Plan("tick", 1_000, True, 12, 1_800_000_001_000, JobId(5), True)],
    rounds=[(JobId(5), "tick", 12)],
    keyed=[JobId(2)],
    ended=[Remembered(JobId(6), OUTCOME, 1_800_000_000_400, 60_000, [(ME, OUTCOME)])],
    ids=[(JobId(7), 1_800_000_000_400)],
    tombs=[(JobId(10), 1_800_000_060_400)],
    epoch=3,
)

CALLS: list[Call] = [
    Enqueue("send_email", [(JOB, b"\x80"), (JobId(2**128 - 1), b"")], -5, False, 30_000, True),
    Cancel(JOB),
    Retry(JOB),
    Discard(JOB),
    AwaitResult(JOB),
    StopTask("tick"),
    StartTask("tick"),
    ListJobs("send_email", True, 100),
    FindJob(JOB),
    CountJobs(),
    AskStats(),
    AskStatus(),
    Leave(5_000),
]
ANSWERS: list[Answer] = [
    Refused(Refusal.UNKNOWN_TASK, "no task send_mail; there is send_email"),
    Accepted([JOB]),
    Did(True),
    Ended(JOB, OUTCOME, [PartEnded(MEMBER, Outcome(Status.FAILED, b"", FAILURE))]),
    Listed([JOB_INFO], 7),
    Counted({"global": 1, "local": 0}),
    Stats({"enqueued": 2}, {"send_email": {"enqueued": 2}}, ["web-2"], {"denied: wrong secret": 3}),
    ClusterStatus(
        [MemberStatus(MEMBER, True, 8, 3, ["send_email", "tick"])],
        {"global": 1},
        0,
        [PlanInfo("tick", 1_000, 12, None, True)],
        ["gone"],
        60_000,
    ),
    Left(1),
]
MESSAGES: list[Message] = [
    GiveUp(3),
    Hello(),
    Welcome(MEMBER, 1_048_576, 1_800_000_000_300),
    Rejected("another cluster"),
    Request(1, CALLS[0]),
    Response(1, ANSWERS[0], True),
    Beat(17, 2, 2**64 - 1, 2**63, 8, 3, 250, True, 1_800_000_000_500),
    Ping(5),
    Pong(5),
    PingFor(6, PEER),
    PongFor(6, PEER, True),
    ProbeFor(7, PEER),
    ProbedFor(7, PEER, False),
    Rumours([RUMOUR]),
    Sync([RUMOUR, Rumour(MEMBER, Standing.LEFT, 0, 1)], True),
    AskTasks(),
    Tasks([TaskSpec("tick", frequency_ms=1_000)]),
    Ask(8, CALLS[-2]),
    Answered(8, ANSWERS[0], True),
    IdentityInUse(MEMBER),
    Follow(STREAM, 41, 1_800_000_000_500),
    Copied(STREAM, CHUNK, True),
    Entries(STREAM, 42, [Lent([JOB], ME), Due([])]),
    Received(STREAM, 43),
    Followers(STREAM, [ME, PEER]),
    Unfollow(STREAM),
    Have(STREAM, 43),
    AskHeld(9, STREAM),
    Held(9, [Loaned(RUN, True, REPORT), Loaned(RUN, False)], StreamId("own", ME, 1), True),
    Took(STREAM, StreamId("delayed", ME, 8)),
    Owns(STREAM),
    Offer(STREAM, CHUNK, False, 1_800_000_000_500),
    OfferTaken(STREAM, StreamId("delayed", ME, 8)),
    OfferRefused(STREAM),
    Grant(STREAM, [RUN], True),
    Began(STREAM, [JOB]),
    Reported(STREAM, [REPORT], 2),
    GiveBack(STREAM, [JOB], None),
    Settled(STREAM, [JOB]),
    Recall(STREAM, [JOB]),
    CannotStop(STREAM, JOB),
    Hungry(3),
    Sated(),
    Waiting(),
    CheckLoans(STREAM, [JOB]),
    NotHeld(STREAM, [JOB]),
]
ENTRIES: list[Entry] = [
    Put(HEADER, [(JOB, b"\x80"), (JobId(8), b"")], 1_800_000_000_100, 1_800_000_030_100, True, True),
    Due([JOB]),
    Lent([JOB], PEER),
    Returned([JOB]),
    Orphaned([JOB, JobId(8)], [JOB]),
    Adopted([JOB], [2], PEER),
    Done([JOB], [OUTCOME], 1_800_000_000_400),
    Waits(JOB, Outcome(Status.FAILED, b"", FAILURE), 1_800_000_005_400, True),
    Died(JOB, Outcome(Status.FAILED, b"", FAILURE), 1_800_000_000_400),
    CancelAsked(JOB),
    Revived(JOB, PEER),
    Dropped(JOB),
    Spread(JOB, [ME], [PEER], 1_800_000_000_100),
    Planned("tick", 1_000, True, 12, 1_800_000_001_000),
    PlanStopped("tick"),
    Advanced(Header("tick"), JobId(5), 13, 1_800_000_001_000, 1_800_000_002_000),
    Imported(STREAM, CHUNK),
    Moved([JOB]),
    Rehomed(ME),
]
SAMPLES: dict[type, Message] = {
    **{type(call): Request(1, call) for call in CALLS},
    **{type(answer): Response(1, answer) for answer in ANSWERS},
    **{type(message): message for message in MESSAGES},
    **{type(entry): Entries(STREAM, 44, [entry]) for entry in ENTRIES},
}
HELLO = Frame(ME, PEER, [Hello()])


def row_of(frame: Frame) -> list[Any]:
    """What msgpack has in a frame."""
    row: list[Any] = unpackb(wire.encode(frame, TAG)[3:])
    return row


def bytes_of(row: Any) -> bytes:
    return b"zh\x01" + packb(row)


# --- kinds and golden bytes ---------------------------------------------------------------------------------------


def test_each_kind_has_a_number_of_its_own() -> None:
    kinds = {*get_args(Message), *get_args(Call), *get_args(Answer), *get_args(Entry)}
    assert kinds == wire.KINDS.keys()
    assert len(set(wire.KINDS.values())) == len(wire.KINDS)
    assert all(0 <= number < 128 for number in wire.KINDS.values())  # one byte each


def test_each_kind_has_a_sample() -> None:
    assert SAMPLES.keys() == wire.KINDS.keys()


@pytest.mark.parametrize("kind", wire.KINDS, ids=lambda kind: kind.__name__)
def test_the_bytes_of_a_kind_stay_what_they_are(kind: type) -> None:
    frame = Frame(ME, PEER, [SAMPLES[kind]])
    path = GOLDEN / f"{wire.KINDS[kind]:02}_{kind.__name__}.bin"
    if REWRITE:
        path.write_bytes(wire.encode(frame, TAG))
    golden = path.read_bytes()
    assert wire.encode(frame, TAG) == golden
    assert wire.decode(golden, TAG) == frame
    assert type(wire.decode(golden, TAG).sender) is Life


def test_there_are_no_other_golden_files() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {
        f"{number:02}_{kind.__name__}.bin" for kind, number in wire.KINDS.items()
    }


# --- layout -------------------------------------------------------------------------------------------------------


def test_a_frame_is_a_header_and_an_array() -> None:
    data = wire.encode(Frame(ME, None, [Hello(), GiveUp(7)]), TAG)
    assert data[:3] == b"zh\x01"
    assert unpackb(data[3:]) == [TAG, [ME.node, ME.boot, ME.life], None, [[4], [3, 7]], [], 0, 0]
    assert wire.decode(data, TAG) == Frame(ME, None, [Hello(), GiveUp(7)])


def test_a_frame_may_be_empty() -> None:
    frame = Frame(ME, PEER, [])
    assert wire.decode(wire.encode(frame, TAG), TAG) == frame


def test_a_tag_is_eight_bytes_and_keeps_clusters_apart() -> None:
    assert len(TAG) == 8
    assert TAG == wire.cluster_tag("garden") != wire.cluster_tag("Garden")


def test_a_frame_of_another_cluster_is_told_from_garbage() -> None:
    with pytest.raises(wire.WireCluster):
        wire.decode(wire.encode(HELLO, wire.cluster_tag("orchard")), TAG)


def test_a_frame_of_another_version_is_told_from_garbage_whatever_follows() -> None:
    for rest in (b"", b"\xc1", wire.encode(HELLO, TAG)[3:]):
        with pytest.raises(wire.WireVersion) as caught:
            wire.decode(b"zh\x02" + rest, TAG)
        assert caught.value.version == 2
        assert "2" in str(caught.value)


def test_fields_that_the_decoder_does_not_know_are_ignored() -> None:
    frame = Frame(ME, PEER, [Response(1, Ended(JOB, OUTCOME, [PartEnded(MEMBER, OUTCOME)]))])
    row = row_of(frame)
    row.append("new in the frame")
    message = row[3][0]
    message.append("new in Response")
    answer = message[2]
    answer.append("new in Ended")
    answer[3][0].append({"new": "in PartEnded"})
    answer[2].append(["new in Outcome"])
    assert wire.decode(bytes_of(row), TAG) == frame


def test_fields_that_were_not_sent_take_their_defaults() -> None:
    row = row_of(Frame(ME, PEER, [Request(1, Enqueue("tick", [(JOB, b"\x80")]))]))
    call = row[3][0][2]
    del call[3:]
    assert wire.decode(bytes_of(row), TAG).messages == [Request(1, Enqueue("tick", [(JOB, b"\x80")]))]
    del call[2:]
    with pytest.raises(wire.WireInvalid, match="Enqueue"):
        wire.decode(bytes_of(row), TAG)


def test_text_that_is_no_unicode_is_sent_with_escapes() -> None:
    outcome = Outcome(Status.FAILED, b"", Failure("OSError", "no file caf\udce9", "é"))
    frame = Frame(ME, PEER, [Response(1, Ended(JOB, outcome))])
    back = wire.decode(wire.encode(frame, TAG), TAG)
    escaped = Outcome(Status.FAILED, b"", Failure("OSError", "no file caf\\udce9", "é"))
    assert back.messages == [Response(1, Ended(JOB, escaped))]


# --- limits -------------------------------------------------------------------------------------------------------


def test_a_frame_has_a_largest_size() -> None:
    def frame(size: int) -> Frame:
        return Frame(ME, PEER, [Request(1, Enqueue("tick", [(JOB, bytes(size))]))])

    spare = FRAME_MAX_BYTES - len(wire.encode(frame(FRAME_MAX_BYTES // 2), TAG)) + FRAME_MAX_BYTES // 2
    largest = wire.encode(frame(spare), TAG)
    assert len(largest) == FRAME_MAX_BYTES
    assert wire.decode(largest, TAG) == frame(spare)
    with pytest.raises(wire.WireInvalid, match="bytes"):
        wire.encode(frame(spare + 1), TAG)
    with pytest.raises(wire.WireInvalid, match="bytes"):
        wire.decode(largest + b"\x00", TAG)


def test_a_frame_has_a_largest_number_of_messages() -> None:
    most = Frame(ME, PEER, [Hello()] * MESSAGES_MAX_COUNT)
    assert wire.decode(wire.encode(most, TAG), TAG) == most
    with pytest.raises(wire.WireInvalid, match="messages"):
        wire.encode(Frame(ME, PEER, [Hello()] * (MESSAGES_MAX_COUNT + 1)), TAG)
    row = row_of(most)
    row[3].append([4])
    with pytest.raises(wire.WireInvalid, match="messages"):
        wire.decode(bytes_of(row), TAG)


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1])
def test_an_integer_beyond_64_bits_is_not_sent(number: int) -> None:
    with pytest.raises(wire.WireInvalid, match="integer"):
        wire.encode(Frame(ME, PEER, [GiveUp(number)]), TAG)


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63)])
def test_an_integer_of_64_bits_is_sent(number: int) -> None:
    frame = Frame(ME, PEER, [GiveUp(number)])
    assert wire.decode(wire.encode(frame, TAG), TAG) == frame


@pytest.mark.parametrize("number", [2**128, -1])
def test_a_job_id_beyond_128_bits_is_not_sent(number: int) -> None:
    with pytest.raises(wire.WireInvalid, match="integer"):
        wire.encode(Frame(ME, PEER, [Request(1, Cancel(JobId(number)))]), TAG)


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"z",
        b"zh",
        b"hz\x01\x90",
        b"zh\x01",
        b"zh\x01\xc1",
        b"zh\x01\xc0",
        b"zh\x01\x90",
        b"zh\x01\x91\xc0",
        b"zh\x01\x91\xa8" + b"a" * 8,
        b"zh\x01\x91\xc4\x07" + TAG[:7],
        b"zh\x01\xdd\xff\xff\xff\xff",
        b"zh\x01\xdf\xff\xff\xff\xff",
        b"zh\x01\xc6\xff\xff\xff\xff",
        b"zh\x01\x94\xc4\x08" + TAG + b"\x91" * 100_000,
        b"zh\x01\x91\xc4\x08" + TAG,
        b"zh\x01\x81\x90\x01",
        b"zh\x01\xc7\x0c\xff" + b"\xff" * 12,
        wire.encode(HELLO, TAG) + b"\x00",
        wire.encode(HELLO, TAG)[:-1],
    ],
    ids=lambda data: data[:16].hex() or "empty",
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(wire.WireInvalid):
        wire.decode(data, TAG)


def put(*places: int, value: Any) -> Callable[[list[Any]], None]:
    """Puts a value into a place of the first message, counted from its kind."""

    def change(row: list[Any]) -> None:
        inner = row[3][0]
        for place in places[:-1]:
            inner = inner[place]
        inner[places[-1]] = value

    return change


ENQUEUE, ENDED, LISTED = Request(1, CALLS[0]), Response(1, ANSWERS[3]), Response(1, ANSWERS[4])
STATS, REFUSED = Response(1, ANSWERS[6]), Response(1, ANSWERS[0])


@pytest.mark.parametrize(
    ("message", "change", "where"),
    [
        (ENQUEUE, put(0, value=99), "unknown kind"),
        (ENQUEUE, put(0, value=32), "unknown kind"),  # a call is no message
        (ENQUEUE, put(0, value="1"), "unknown kind"),
        (ENQUEUE, put(0, value=True), "unknown kind"),
        (ENQUEUE, put(0, value=[]), "unknown kind"),
        (ENQUEUE, put(2, 0, value=65), "Request.call: unknown kind"),  # an answer is no call
        (ENQUEUE, put(1, value="1"), "Request.ref"),
        (ENQUEUE, put(1, value=True), "Request.ref"),
        (ENQUEUE, put(1, value=1.0), "Request.ref"),
        (ENQUEUE, put(1, value=None), "Request.ref"),
        (ENQUEUE, put(2, value=[]), "Request.call"),
        (ENQUEUE, put(2, value={}), "Request.call"),
        (ENQUEUE, put(2, value=[32]), "Enqueue"),
        (ENQUEUE, put(2, 1, value=b"bytes"), "Enqueue.task"),
        (ENQUEUE, put(2, 2, value={}), "Enqueue.jobs"),
        (ENQUEUE, put(2, 2, 0, value=[b"j" * 16]), "Enqueue.jobs"),
        (ENQUEUE, put(2, 2, 0, value=[b"j" * 16, b"", b""]), "Enqueue.jobs"),
        (ENQUEUE, put(2, 2, 0, 0, value=b"j" * 15), "Enqueue.jobs"),
        (ENQUEUE, put(2, 2, 0, 0, value=1), "Enqueue.jobs"),
        (ENQUEUE, put(2, 2, 0, 1, value="text"), "Enqueue.jobs"),
        (ENQUEUE, put(2, 3, value="high"), "Enqueue.priority"),
        (ENQUEUE, put(2, 4, value=1), "Enqueue.announce"),
        (ENQUEUE, put(2, 6, value=None), "Enqueue.keyed"),
        (REFUSED, put(2, 1, value="because"), "Refused.why"),
        (REFUSED, put(2, 1, value=[]), "Refused.why"),
        (ENDED, put(2, 2, 2, value=1), "Failure: no array"),
        (ENDED, put(2, 3, value={}), "Ended.parts"),
        (ENDED, put(2, 3, 0, value=None), "PartEnded"),
        (ENDED, put(2, 3, 0, 0, 0, value=None), "Member.life"),
        (ENDED, put(2, 3, 0, 0, 0, value=[b"n" * 16, 1]), "Member.life"),
        (ENDED, put(2, 3, 0, 0, 0, 0, value=b"n" * 17), "Member.life"),
        (LISTED, put(2, 1, 0, 2, value="some"), "JobInfo.scope"),
        (LISTED, put(2, 1, 0, 3, value=3), "JobInfo.state"),
        (STATS, put(2, 1, value=[]), "Stats.totals"),
        (STATS, put(2, 1, value={b"enqueued": 1}), "Stats.totals"),
        (STATS, put(2, 2, value={"task": {"enqueued": "1"}}), "Stats.tasks"),
    ],
)
def test_a_wrong_field_is_refused_by_name(message: Message, change: Callable[[list[Any]], None], where: str) -> None:
    row = row_of(Frame(ME, PEER, [message]))
    change(row)
    with pytest.raises(wire.WireInvalid, match=where):
        wire.decode(bytes_of(row), TAG)


@pytest.mark.parametrize(
    ("place", "value"),
    [(1, None), (1, []), (1, [b"short", 1, 0]), (2, 0), (2, [b"n" * 16, "1", 0]), (3, None), (3, {}), (3, [None])],
)
def test_a_wrong_frame_is_refused(place: int, value: Any) -> None:
    row = row_of(HELLO)
    row[place] = value
    with pytest.raises(wire.WireInvalid):
        wire.decode(bytes_of(row), TAG)


def test_all_that_is_wrong_with_bytes_is_a_wire_error() -> None:
    assert issubclass(wire.WireError, ZheroError)
    for error in (wire.WireInvalid, wire.WireVersion, wire.WireCluster):
        assert issubclass(error, wire.WireError)
