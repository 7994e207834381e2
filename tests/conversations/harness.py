"""An engine driven by hand, and transcripts of what it says.

A transcript is a text file. A line at the left margin is a command: something is asked of the engine, or time passes.
The indented lines below it are all that the engine wants or tells because of it, and nothing else may come:

    → start    run this (`attempt`, `tries`, its round)       · told     a fact: a log line, an event
    → stop     end that run, if it can be ended               ← client   a message to a client: all others cost none
    reply      the answer to a call, at once                  reply to   the answer to a call of before

`#` begins a comment. Jobs have the names that the transcript gives them, the rounds of a periodic task are `task.1`,
`task.2`, ..., and the part of an "all" job is `job@n1`. Instants are told as spans from now. The commands are the
methods of `Conversation`; `client NAME: COMMAND` says it as a client, which is no member, in a frame.

After each command every invariant is checked. A tick, and a report of the executor, is given twice: the second must
change nothing. `ZHERO_REWRITE=1 pytest tests/conversations` writes what the engine says
now into the transcripts; review the change as you would review code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

from zhero.config import Limits
from zhero.core.effects import Effect, Reply, Send, Start, Stop, Tell
from zhero.core.engine import Engine
from zhero.core.facts import (
    DeadLetterDropped,
    Fact,
    JobEnded,
    JobQueued,
    JobRetried,
    JobStarted,
    OwnerChanged,
    PeerMisbehaved,
    TaskMissing,
    TaskScheduled,
    TaskUnscheduled,
    VerdictIgnored,
)
from zhero.core.messages import (
    Accepted,
    Answer,
    AskStats,
    AskStatus,
    AwaitResult,
    Call,
    Cancel,
    ClusterStatus,
    Counted,
    CountJobs,
    Did,
    Discard,
    Ended,
    Enqueue,
    FindJob,
    Frame,
    GiveUp,
    Hello,
    Leave,
    Left,
    Listed,
    ListJobs,
    Refused,
    Request,
    Response,
    Retry,
    StartTask,
    Stats,
    StopTask,
)
from zhero.core.values import (
    NO_JOB,
    NO_PARAMS,
    NOTHING,
    Failure,
    Finished,
    JobId,
    JobInfo,
    Life,
    Member,
    NodeId,
    Outcome,
    Run,
    Status,
    TaskSpec,
    Verdict,
    keyed_id,
    part_id,
    round_id,
)

START_MS = 1_000_000
ME = Member(Life(NodeId(b"n1" * 8), 1, 0), "n1", "tcp://127.0.0.1:7001", 101, "0")

GOOD = Outcome(Status.SUCCEEDED, NOTHING)
BAD = Outcome(Status.FAILED, failure=Failure("ValueError", "no"))


class Node:
    """An engine, the clock it is given, and everything that came of it.

    Every input is a method of its own; after each the invariants are checked.
    """

    def __init__(self, *specs: TaskSpec, capacity: int = 0, limits: Limits | None = None) -> None:
        self.now_ms = START_MS
        self.engine = Engine(ME, limits or Limits(), self.now_ms, Random(1))
        self.runs: dict[JobId, Run] = {}  # the last start of each job
        self.effects: list[Effect] = []  # of the last input
        self.all_effects: list[Effect] = []
        self.clients: dict[str, Life] = {}
        self._ref = 0
        self._next_job = 1
        if specs:
            self.define(*specs)
        if capacity:
            self.capacity(capacity)

    # --- inputs ---------------------------------------------------------------------------------------------------

    def define(self, *specs: TaskSpec) -> list[Effect]:
        return self._done(self.engine.define(specs, self.now_ms))

    def capacity(self, count: int) -> list[Effect]:
        return self._done(self.engine.capacity(count, self.now_ms))

    def ask(self, call: Call) -> Answer | None:
        """A call of the own process. Returns: the answer, if it came at once."""
        self._ref += 1
        self._done(self.engine.call(self._ref, call, self.now_ms))
        return next((it.answer for it in self.effects if isinstance(it, Reply) and it.ref == self._ref), None)

    @property
    def last_ref(self) -> int:
        return self._ref

    def say(self, client: str, *messages: Request | GiveUp | Hello | Response) -> list[Effect]:
        """A frame from a client."""
        life = self.clients.setdefault(client, Life(NodeId(client.encode().ljust(16, b".")), 1, 0))
        return self._done(self.engine.receive(Frame(life, None, list(messages)), self.now_ms))

    def enqueue(self, task: str, count: int = 1, delay_ms: int = 0, *, params: bytes = NO_PARAMS) -> list[JobId]:
        """Enqueue some, and have them accepted."""
        jobs = [self.new_id() for _ in range(count)]
        answer = self.ask(Enqueue(task, [(job, params) for job in jobs], delay_ms=delay_ms))
        assert isinstance(answer, Accepted), answer
        return answer.jobs

    def new_id(self) -> JobId:
        made = JobId(self._next_job)
        self._next_job += 1
        return made

    def started(self, *jobs: JobId) -> list[Effect]:
        return self._done(self.engine.started(jobs, self.now_ms))

    def finished(
        self, job: JobId, verdict: Verdict = Verdict.DONE, outcome: Outcome | None = None, delay_ms: int = 0
    ) -> list[Effect]:
        """The last start of that job has ended."""
        return self.report(self.verdict(job, verdict, outcome, delay_ms))

    def verdict(
        self, job: JobId, verdict: Verdict = Verdict.DONE, outcome: Outcome | None = None, delay_ms: int = 0
    ) -> Finished:
        if outcome is None:
            outcome = GOOD if verdict is Verdict.DONE else BAD
        return Finished(job, self.runs[job].attempt, verdict, outcome, delay_ms)

    def report(self, *reports: Finished) -> list[Effect]:
        """What the executor says; twice, as it may, and the second time is ignored."""
        effects = self._done(self.engine.finished(reports, self.now_ms))
        ignored = [Tell(VerdictIgnored(report.job, report.attempt)) for report in reports]
        assert self.engine.finished(reports, self.now_ms) == ignored
        self.engine.check()
        return effects

    def cannot_stop(self, job: JobId) -> list[Effect]:
        return self._done(self.engine.cannot_stop(job, self.now_ms))

    def give_up(self, ref: int) -> None:
        self.engine.give_up(ref)
        self.engine.check()

    def tick(self, span_ms: int = 0) -> list[Effect]:
        """Time passes, and the engine hears of it; twice, as it may, and the second time it has nothing to do."""
        self.now_ms += span_ms
        effects = self._done(self.engine.tick(self.now_ms))
        assert self.engine.tick(self.now_ms) == []
        return effects

    def tick_until_due(self) -> list[Effect]:
        """Let time pass until the engine wants it."""
        deadline_ms = self.engine.deadline_ms()
        assert deadline_ms is not None
        return self.tick(max(0, deadline_ms - self.now_ms))

    def _done(self, effects: list[Effect]) -> list[Effect]:
        self.engine.check()
        self.effects = effects
        self.all_effects += effects
        for run in self.starts:
            self.runs[run.job] = run
        return effects

    # --- what came of the last one --------------------------------------------------------------------------------

    @property
    def starts(self) -> list[Run]:
        return [run for effect in self.effects if isinstance(effect, Start) for run in effect.runs]

    @property
    def started_jobs(self) -> list[JobId]:
        return [run.job for run in self.starts]

    @property
    def stops(self) -> list[JobId]:
        return [effect.job for effect in self.effects if isinstance(effect, Stop)]

    @property
    def facts(self) -> list[Fact]:
        return [effect.fact for effect in self.effects if isinstance(effect, Tell)]

    @property
    def answers(self) -> dict[int, Answer]:
        return {effect.ref: effect.answer for effect in self.effects if isinstance(effect, Reply)}

    @property
    def messages(self) -> list[object]:
        return [message for effect in self.effects if isinstance(effect, Send) for message in effect.frame.messages]

    # --- looking --------------------------------------------------------------------------------------------------

    def queues(self) -> dict[str, int]:
        answer = self.ask(CountJobs())
        assert isinstance(answer, Counted)
        return {name: count for name, count in answer.queues.items() if count}

    def jobs(self, task: str | None = None, *, dead: bool = False) -> list[JobInfo]:
        answer = self.ask(ListJobs(task, dead))
        assert isinstance(answer, Listed)
        return answer.jobs

    def find(self, job: JobId) -> JobInfo | None:
        answer = self.ask(FindJob(job))
        return answer.jobs[0] if isinstance(answer, Listed) else None

    def status(self) -> ClusterStatus:
        answer = self.ask(AskStatus())
        assert isinstance(answer, ClusterStatus)
        return answer

    def stats(self) -> dict[str, int]:
        answer = self.ask(AskStats())
        assert isinstance(answer, Stats)
        return {name: count for name, count in answer.totals.items() if count}


class Conversation:
    """Takes commands, tells what comes of them. Each method `on_X` is the command `X`."""

    def __init__(self) -> None:
        self.node = Node()
        self._specs: dict[str, TaskSpec] = {}
        self._ids: dict[str, JobId] = {}
        self._names: dict[JobId, str] = {}
        self._asked: dict[object, str] = {}  # who asked -> the command that did
        self._client = ""
        self._client_ref = 0
        self._said: list[str] = []

    def lines_of(self, command: str) -> Iterator[str]:
        """Carry it out; tell what came of it, one line each."""
        asked = command
        self._client = ""
        if command.startswith("client "):
            name, _, command = command.removeprefix("client ").partition(":")
            self._client = name.strip()
        words = command.split()
        self.node.effects = []
        self._said.clear()
        self._asking = asked
        getattr(self, f"on_{words[0]}")(words[1:])
        yield from self._said
        yield from (line for effect in self.node.effects for line in self._told(effect))

    # --- names ----------------------------------------------------------------------------------------------------

    def _name(self, job: JobId, name: str) -> JobId:
        self._ids[name], self._names[job] = job, name
        part = part_id(job, ME.life.node)
        self._ids[f"{name}@n1"], self._names[part] = part, f"{name}@n1"
        return job

    def _name_rounds(self, spec: TaskSpec) -> None:
        base = self.node.now_ms // spec.frequency_ms
        for number in range(1, 100):
            self._name(round_id(spec.name, base + number), f"{spec.name}.{number}")

    def _job(self, name: str) -> JobId:
        job = self._ids.get(name)
        return job if job is not None else self._name(self.node.new_id(), name)

    # --- commands -------------------------------------------------------------------------------------------------

    def on_tasks(self, words: list[str]) -> None:
        """`tasks NAME[:OPTION]...`: all tasks of the node. Options: all, every=MS, fixed_rate, at_once, keep=MS,
        once (not re-enqueued on error), priority=N, quiet."""
        specs: list[TaskSpec] = []
        for word in words:
            name, *options = word.split(":")
            given = dict(option.partition("=")[::2] for option in options)
            spec = TaskSpec(
                name,
                "all" if "all" in given else "any",
                int(given.get("every", 0)),
                "fixed_rate" in given,
                "at_once" in given,
                "quiet" not in given,
                int(given.get("priority", 0)),
                int(given.get("keep", 60_000)),
                "once" not in given,
            )
            specs.append(spec)
            if spec.frequency_ms and name not in self._specs:
                self._name_rounds(spec)
            self._specs[name] = spec
        self.node.define(*specs)

    def on_limits(self, words: list[str]) -> None:
        """`limits NAME=VALUE...`, before all else: `Limits` by their names."""
        changes = {name: int(value) for name, _, value in (word.partition("=") for word in words)}
        self.node = Node(limits=replace(Limits(), **changes))

    def on_capacity(self, words: list[str]) -> None:
        """`capacity N`: the executor wants to hold so many unfinished jobs."""
        self.node.capacity(int(words[0]))

    def on_enqueue(self, words: list[str]) -> None:
        """`enqueue TASK JOB... [in=MS] [priority=N] [quiet] [keyed] [bytes=N]`; `keyed`: the id is the caller's own."""
        task, *rest = words
        given = dict(word.partition("=")[::2] for word in rest if "=" in word or word in ("quiet", "keyed"))
        names = [word for word in rest if word.partition("=")[0] not in given]
        keyed = "keyed" in given
        for name in names if keyed else ():
            self._name(keyed_id(task, name), name)
        params = bytes(int(given["bytes"])) if "bytes" in given else NO_PARAMS
        self._call(
            Enqueue(
                task,
                [(self._job(name), params) for name in names],
                int(given["priority"]) if "priority" in given else None,
                False if "quiet" in given else None,
                int(given.get("in", 0)),
                keyed,
            )
        )

    def on_started(self, words: list[str]) -> None:
        """`started JOB...`: the executor has begun them."""
        self.node.started(*map(self._job, words))

    def on_finished(self, words: list[str]) -> None:
        """`finished JOB=VERDICT...`: done, failed, timed_out, crashed, discarded, cancelled, retry+MS, snooze+MS; all
        in one report. `JOB#N=...`: of attempt N, not of the last."""
        self.node.report(*map(self._report, words))

    def _report(self, word: str) -> Finished:
        name, _, end = word.partition("=")
        name, _, attempt = name.partition("#")
        end, _, delay = end.partition("+")
        verdicts = {"done": Verdict.DONE, "retry": Verdict.RETRY, "snooze": Verdict.SNOOZE}
        verdict = Verdict.CANCELLED if end == "cancelled" else verdicts.get(end, Verdict.DEAD)
        outcome = GOOD if end == "done" else BAD if end in ("failed", "retry", "snooze") else Outcome(Status(end))
        job = self._job(name)
        report = Finished(job, int(attempt or 0), verdict, outcome, int(delay or 0))
        return report if attempt else replace(report, attempt=self.node.runs[job].attempt)

    def on_cannot_stop(self, words: list[str]) -> None:
        """`cannot_stop JOB`: the executor can't end that run."""
        self.node.cannot_stop(self._job(words[0]))

    def on_tick(self, words: list[str]) -> None:
        """`tick +MS`: so much time passes, then the engine is told."""
        self.node.tick(int(words[0]))

    def on_deadline(self, words: list[str]) -> None:
        """`deadline`: when the engine next wants a tick, if nothing else happens."""
        at_ms = self.node.engine.deadline_ms()
        self._said.append("none" if at_ms is None else f"in {at_ms - self.node.now_ms}")

    def on_cancel(self, words: list[str]) -> None:
        self._call(Cancel(self._job(words[0])))

    def on_await(self, words: list[str]) -> None:
        self._call(AwaitResult(self._job(words[0])))

    def on_retry(self, words: list[str]) -> None:
        self._call(Retry(self._job(words[0])))

    def on_discard(self, words: list[str]) -> None:
        self._call(Discard(self._job(words[0])))

    def on_find(self, words: list[str]) -> None:
        self._call(FindJob(self._job(words[0])))

    def on_stop(self, words: list[str]) -> None:
        """`stop TASK`: its schedule."""
        self._call(StopTask(words[0]))

    def on_start(self, words: list[str]) -> None:
        """`start TASK`: its schedule, again."""
        self._call(StartTask(words[0]))

    def on_list(self, words: list[str]) -> None:
        """`list [TASK] [dead] [limit=N]`"""
        limits = [int(word.partition("=")[2]) for word in words if word.startswith("limit=")]
        tasks = [word for word in words if word in self._specs]
        self._call(ListJobs(tasks[0] if tasks else None, "dead" in words, limits[0] if limits else 0))

    def on_count(self, words: list[str]) -> None:
        self._call(CountJobs())

    def on_stats(self, words: list[str]) -> None:
        self._call(AskStats())

    def on_status(self, words: list[str]) -> None:
        self._call(AskStatus())

    def on_leave(self, words: list[str]) -> None:
        """`leave MS`: the node is to leave, in so much time at most."""
        self._call(Leave(int(words[0])))

    def on_hello(self, words: list[str]) -> None:
        self.node.say(self._client, Hello())

    def on_give_up(self, words: list[str]) -> None:
        """`give_up COMMAND`: whoever said that does not wait any more."""
        command = " ".join(words)
        who = next(asker for asker, asked in self._asked.items() if asked.rpartition(": ")[2] == command)
        if isinstance(who, int):
            self.node.give_up(who)
        else:
            assert isinstance(who, tuple)
            self.node.say(self._client, GiveUp(who[1]))

    def on_again(self, words: list[str]) -> None:
        """`again`: the client says its last request once more, with the same ref."""
        self.node.say(self._client, self._last_request)

    def _call(self, call: Call) -> None:
        if self._client:
            self._client_ref += 1
            self._asked[self._client, self._client_ref] = self._asking
            self._last_request = Request(self._client_ref, call)
            self.node.say(self._client, self._last_request)
        else:
            self._asked[self.node.last_ref + 1] = self._asking
            self.node.ask(call)

    # --- telling --------------------------------------------------------------------------------------------------

    def _told(self, effect: Effect) -> Iterator[str]:
        match effect:
            case Start(runs):
                for run in runs:
                    yield f"→ start {self._run(run)}"
            case Stop(job):
                yield f"→ stop {self._names[job]}"
            case Reply(ref, answer):
                asked = self._asked[ref]
                yield from _under("reply" if asked == self._asking else f"reply to “{asked}”", self._answer(answer))
            case Send(to, frame):
                client = next(name for name, life in self.node.clients.items() if life == to)
                for message in frame.messages:
                    yield from self._message(client, message)
            case Tell(fact):
                yield f"· {self._fact(fact)}"

    def _message(self, client: str, message: object) -> Iterator[str]:
        if isinstance(message, Response):
            asked = self._asked[client, message.ref]
            to = "" if asked == self._asking or self._asking.endswith("again") else f" to “{asked}”"
            yield from _under(
                f"← {client}{' (more follows)' if message.more else ''}{to}", self._answer(message.answer)
            )
        else:
            yield f"← {client} {type(message).__name__}"

    def _run(self, run: Run) -> str:
        words = [self._names[run.job], run.header.task, f"attempt={run.attempt}"]
        if run.tries != run.attempt:
            words.append(f"tries={run.tries}")
        return " ".join(words)

    def _answer(self, answer: Answer) -> list[str]:
        match answer:
            case Refused(why, detail):
                return [f"refused {why.value}: {self._words(detail)}"]
            case Accepted(jobs):
                return ["accepted " + " ".join(self._names[job] for job in jobs)]
            case Did(done):
                return [f"did {'it' if done else 'nothing'}"]
            case Ended(job, outcome, parts):
                ended = [f"ended {self._names[job]} {_outcome(outcome)}"]
                return ended + [f"{part.member.name} {_outcome(part.outcome)}" for part in parts or ()]
            case Listed(jobs, total):
                return [f"listed {len(jobs)} of {total}", *(self._info(info) for info in jobs)]
            case Counted(queues):
                return ["counted " + _counts(queues)]
            case Stats(totals):
                return ["stats " + _counts(totals)]
            case ClusterStatus():
                return [
                    f"status {_counts(answer.queues)} dead={answer.dead} missing={','.join(answer.missing) or '-'}",
                    *(f"{it.member.name} owner={it.owner} slots={it.slots} busy={it.busy}" for it in answer.members),
                    *(
                        f"plan {plan.task} every={plan.frequency_ms} "
                        + ("stopped" if plan.stopped else "waits" if plan.due_in_ms is None else f"in={plan.due_in_ms}")
                        for plan in answer.plans
                    ),
                ]
            case Left(lost):
                return [f"left lost={lost}"]

    def _words(self, text: str) -> str:
        """Ids in a text by their names."""
        return " ".join(self._names.get(JobId(int(it, 16)), it) if len(it) == 32 else it for it in text.split())

    def _info(self, info: JobInfo) -> str:
        words = [self._names[info.job], info.task, info.state.value, f"attempt={info.attempt}", f"tries={info.tries}"]
        if info.run_at_ms > self.node.now_ms:
            words.append(f"in={info.run_at_ms - self.node.now_ms}")
        if info.parent != NO_JOB:
            words.append(f"part of {self._names[info.parent]}")
        if info.outcome is not None:
            words.append(f"({_outcome(info.outcome)})")
        return " ".join(words)

    def _fact(self, fact: Fact) -> str:
        match fact:
            case JobQueued(job, task, announce, run_in_ms):
                return f"queued {self._names[job]} {task} in={run_in_ms}{_quiet(announce)}"
            case JobStarted(job, task, announce, attempt):
                return f"started {self._names[job]} {task} attempt={attempt}{_quiet(announce)}"
            case JobRetried(job, task, announce, attempt, run_in_ms, snoozed):
                what = "snoozed" if snoozed else "retried"
                return f"{what} {self._names[job]} {task} attempt={attempt} in={run_in_ms}{_quiet(announce)}"
            case JobEnded(job, task, announce, attempt, status):
                return f"ended {self._names[job]} {task} attempt={attempt} {status.value}{_quiet(announce)}"
            case TaskScheduled(task, run_in_ms):
                return f"scheduled {task} in={run_in_ms}"
            case TaskUnscheduled(task, why):
                return f"unscheduled {task}: {why}"
            case TaskMissing(task, waiting):
                return f"missing {task} waiting={waiting}"
            case DeadLetterDropped(job, task):
                return f"dropped the dead letter {self._names[job]} {task}"
            case VerdictIgnored(job, attempt):
                return f"ignored a verdict {self._names[job]} attempt={attempt}"
            case PeerMisbehaved(_, what):
                return f"misbehaved: {what}"
            case OwnerChanged(owner, epoch):
                return f"owner {owner.name} epoch={epoch}"
            case _:
                raise AssertionError(f"{fact} is told to nobody who is alone")


def _under(what: str, lines: Sequence[str]) -> Iterator[str]:
    yield f"{what}: {lines[0]}"
    yield from (f"    {line}" for line in lines[1:])


def _outcome(outcome: Outcome) -> str:
    return outcome.status.value + (f" {outcome.failure.kind}" if outcome.failure is not None else "")


def _counts(counts: dict[str, int]) -> str:
    return " ".join(f"{name}={count}" for name, count in counts.items() if count) or "nothing"


def _quiet(announce: bool) -> str:
    return "" if announce else " (quiet)"


def play(transcript: str) -> str:
    """The transcript as the engine makes it now: its commands and comments, and what comes of them."""
    conversation = Conversation()
    lines: list[str] = []
    for line in transcript.splitlines():
        if line.startswith(" "):
            continue
        lines.append(line)
        if line and not line.startswith("#"):
            lines += (f"    {told}" for told in conversation.lines_of(line))
    return "\n".join(lines) + "\n"
