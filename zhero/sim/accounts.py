"""What became of every job, as it is seen from outside of all nodes: who asked, what was answered, what ran and ended.

Nothing here depends on where a job travels between nodes, or on how they do it. A job's account is opened by whoever
asks for it, or by its first run where nobody has to ask: a round of a periodic task, a part of an "all" job. What is
wrong with an account is for the checkers to say.

State: job -> `Account`; process and caller -> what it asked and was not answered yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..core.effects import Asker, Tell
from ..core.entries import Imported, Revived
from ..core.facts import JobEnded
from ..core.messages import Accepted, Answer, Call, Cancel, Did, Enqueue, GiveUp, Refusal, Refused, Retry
from ..core.values import NO_JOB, Finished, JobId, NodeId, Run, Scope, TaskSpec, Verdict, part_id, round_id
from .node import Node
from .story import Step

Open = tuple[Node, Asker]
"""Who has asked something, and of which process."""


@dataclass(slots=True)
class Ran:
    """One run that an executor has really begun.

    Attributes:
        homes: processes that had the job in a slice when it began.
        ended_us: 0: it has not.
        report: what the executor said of its end.
    """

    run: Run
    node: Node
    at_us: int
    homes: list[Node]
    ended_us: int = 0
    report: Finished | None = None

    @property
    def fence(self) -> tuple[int, int]:
        return self.run.epoch, self.run.attempt


@dataclass(slots=True)
class Asked:
    """Somebody asked one process to take the job."""

    call: Enqueue
    params: bytes
    node: Node
    at_us: int


@dataclass(slots=True)
class Ended:
    """A process said that the job has ended."""

    fact: JobEnded
    node: Node
    at_us: int


@dataclass(slots=True)
class Account:
    """All that is known of one job. Instants in true microseconds; 0: never.

    Attributes:
        number: of the round that it, or what it is a part of, is; else 0.
        acceptor: who first said that it is accepted.
        pending: it may be held, but nobody said so: the answer has not come, or was `NOT_ACCEPTED`.
        cancel_asked_us: when somebody first wanted it cancelled; cancelled_us: when somebody last heard that it is.
        revived_us: when a person last asked, with success, that it be tried again; revival_asked_us: when somebody last
            asked for that, or a home did so while whoever asked was not answered yet; revivals_open: who that is.
        moved_count: how often it has got another home.
    """

    job: JobId
    task: str
    scope: Scope
    parent: JobId = NO_JOB
    number: int = 0
    asked: list[Asked] = field(default_factory=list[Asked])
    acceptor: Node | None = None
    accepted_us: int = 0
    pending: int = 0
    ran: list[Ran] = field(default_factory=list[Ran])
    ended: list[Ended] = field(default_factory=list[Ended])
    cancel_asked_us: int = 0
    cancelled_us: int = 0
    revived_us: int = 0
    revival_asked_us: int = 0
    revivals_open: set[Open] = field(default_factory=set[Open])
    moved_count: int = 0

    @property
    def is_over(self) -> bool:
        """Whether somebody said that it has ended, and nobody has revived it since."""
        return bool(self.ended) and self.ended[-1].at_us >= self.revived_us

    @property
    def places(self) -> list[Node]:
        """Processes that were asked to take it."""
        return list(dict.fromkeys(asked.node for asked in self.asked))


class Accounts:
    """The accounts of all jobs of one world.

    Args:
        specs: the tasks there are.
    """

    def __init__(self, specs: Iterable[TaskSpec]) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self.jobs: dict[JobId, Account] = {}
        self.open: dict[Open, tuple[Call, int]] = {}  # calls without an answer, and since when
        self.wholes: dict[str, list[Account]] = {}  # task -> its "all" jobs that somebody asked for
        self.ends_in_step: list[Account] = []
        self.cancelled: set[JobId] = set()  # ids that somebody wanted cancelled, of jobs or not
        self.revived: set[JobId] = set()  # the same, wanted run again
        self._members: dict[NodeId, None] = {}  # all who have ever run anything

    def after(self, node: Node, step: Step) -> list[tuple[Call, int, Answer]]:
        """Take notes of a step.

        Returns:
            The calls that are answered in it, each with when it was made.
        """
        self.ends_in_step.clear()
        for asker, call in step.calls:
            if isinstance(call, GiveUp):
                continue
            self.open[node, asker] = (call, step.at_us)
            if isinstance(call, Enqueue):
                self._on_asked(node, call, step.at_us)
                continue
            if isinstance(call, Cancel):
                self.cancelled.add(call.job)
            elif isinstance(call, Retry):
                self.revived.add(call.job)
            if isinstance(call, (Cancel, Retry)) and call.job in self.jobs:
                account = self.jobs[call.job]
                if isinstance(call, Retry):
                    account.revival_asked_us = step.at_us
                    account.revivals_open.add((node, asker))
                else:
                    account.cancel_asked_us = account.cancel_asked_us or step.at_us
        for _, entry in step.entries:
            if isinstance(entry, Revived) and entry.job in self.jobs and self.jobs[entry.job].revivals_open:
                self.jobs[entry.job].revival_asked_us = step.at_us
            if isinstance(entry, Imported):
                for job in entry.chunk.jobs:
                    if job in self.jobs:
                        self.jobs[job].moved_count += 1
        for effect in step.effects:
            if isinstance(effect, Tell) and isinstance(effect.fact, JobEnded):
                self._on_ended(node, effect.fact, step.at_us)
        answered: list[tuple[Call, int, Answer]] = []
        for asker, answers in step.answers().items():
            call_of = self.open.get((node, asker))
            if call_of is None:
                continue
            call, since_us = call_of
            for answer in answers:
                answered.append((call, since_us, answer))
                if isinstance(call, Retry) and call.job in self.jobs:
                    self.jobs[call.job].revivals_open.discard((node, asker))
                self._on_answer(node, call, since_us, answer, step.at_us)
            if isinstance(asker, int):
                del self.open[node, asker]  # a client may say it again, and is answered again
        return answered

    def _on_asked(self, node: Node, call: Enqueue, at_us: int) -> None:
        spec = self._specs.get(call.task)
        if spec is not None and spec.frequency_ms:
            return  # not put but scheduled: the job is a round
        scope: Scope = spec.scope if spec is not None else "any"
        for job, params in call.jobs:
            account = self.jobs.get(job)
            if account is None:
                account = self.jobs[job] = Account(job, call.task, scope)
                if scope == "all":
                    self.wholes.setdefault(call.task, []).append(account)
            account.asked.append(Asked(call, params, node, at_us))
            account.pending += 1

    def _on_answer(self, node: Node, call: Call, since_us: int, answer: Answer, at_us: int) -> None:
        if isinstance(call, Enqueue):
            for job, _ in call.jobs:
                account = self.jobs.get(job)
                if account is None:
                    continue
                if isinstance(answer, Accepted) or not isinstance(answer, Refused):
                    account.acceptor, account.accepted_us = account.acceptor or node, account.accepted_us or at_us
                elif answer.why is not Refusal.NOT_ACCEPTED:
                    account.pending -= 1
        elif isinstance(call, (Cancel, Retry)) and answer == Did(True) and call.job in self.jobs:
            account = self.jobs[call.job]
            if isinstance(call, Cancel):
                account.cancelled_us = at_us
            else:
                account.revived_us = since_us  # it may have run by the time of the answer

    def _on_ended(self, node: Node, fact: JobEnded, at_us: int) -> None:
        account = self.jobs.get(fact.job)
        if account is not None:
            account.ended.append(Ended(fact, node, at_us))
            self.ends_in_step.append(account)

    # --- runs -----------------------------------------------------------------------------------------------------

    def of(self, run: Run, node: Node) -> Account | None:
        """The account of what begins to run; None: nobody ever wanted that."""
        account = self.jobs.get(run.job)
        if account is not None:
            return account
        header, number = run.header, run.number
        parent = NO_JOB
        if not number or run.job != round_id(header.task, number):
            whole = self._whole_of(run, node)
            if whole is None:
                return None
            parent = whole
        account = self.jobs[run.job] = Account(run.job, header.task, header.scope, parent, number)
        if parent and number and parent not in self.jobs:
            self.jobs[parent] = Account(parent, header.task, header.scope, number=number)
        return account

    def _whole_of(self, run: Run, node: Node) -> JobId | None:
        """The job that it is a part of; another member's part may be run where somebody has revived it."""
        task, number = run.header.task, run.number
        wholes = [account.job for account in reversed(self.wholes.get(task, []))]
        if number:
            wholes.insert(0, round_id(task, number))
        self._members[node.life.node] = None
        members = [node.life.node]
        if run.job in self.revived:
            members += self._members
            wholes += [account.job for account in self.jobs.values() if account.task == task and account.number]
        for member in members:
            for whole in wholes:
                if part_id(whole, member) == run.job:
                    return whole
        return None

    def began(self, account: Account, run: Run, node: Node, homes: list[Node], at_us: int) -> None:
        """Enter a run."""
        account.ran.append(Ran(run, node, at_us, homes))

    def ended(self, run: Run, node: Node, report: Finished, at_us: int) -> None:
        """Enter its end."""
        account = self.jobs.get(run.job)
        for ran in reversed(account.ran if account is not None else []):
            if ran.run is run and ran.node is node:
                ran.ended_us, ran.report = at_us, report
                return

    def asked_for(self) -> Iterator[Account]:
        """Jobs that somebody asked for: no rounds, no parts."""
        return (account for account in self.jobs.values() if account.asked)


def goes_on(report: Finished | None) -> bool:
    """Whether a run that ended so is to be followed by another."""
    return report is not None and report.verdict in (Verdict.RETRY, Verdict.SNOOZE)
