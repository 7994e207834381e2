"""The steps that a job can take, and the records that keep where it is.

`STEPS` is the whole life of a job on one page: (state, entry) -> next state. A step that a race can cause (a verdict
that comes late, a return after a cancel) has a row that says it is ignored; a step without a row is a `Bug`.

```
         Put            Due              Lent            (started)
  absent ----> DELAYED -----> READY <------------> LENT -----------> RUNNING
           \\_________________/  ^   \\    Returned    |                 |
                 Put            |    \\ Spread        +--- Done -------+--> absent, outcome kept for result_ttl
                                |     v              +--- Waits ------+--> DELAYED (a retry wait)
                                |   SPREAD           +--- Died -------+--> DEAD --- Dropped --> absent
                                +-------------------------- Revived ---------'
```
"""

from __future__ import annotations

from dataclasses import dataclass

from .entries import (
    Adopted,
    Advanced,
    CancelAsked,
    Died,
    Done,
    Dropped,
    Due,
    Entry,
    Lent,
    Moved,
    Orphaned,
    Put,
    Returned,
    Revived,
    Spread,
    Waits,
)
from .records import Record
from .values import Life, Outcome, State

S = State
STEPS: dict[tuple[State, type[Entry]], State | None] = {
    # from, entry -> to (None: ignored)
    (S.ABSENT, Put): S.READY,  # or DELAYED, if the entry has a due time
    (S.ABSENT, Advanced): S.READY,
    (S.DELAYED, Due): S.READY,
    (S.READY, Lent): S.LENT,
    (S.READY, Spread): S.SPREAD,
    (S.LENT, Returned): S.READY,
    (S.LENT, Orphaned): S.READY,
    (S.RUNNING, Orphaned): S.READY,
    (S.READY, Adopted): S.LENT,  # it turns out that a member holds it
    (S.DELAYED, Adopted): S.LENT,
    (S.LENT, Done): S.ABSENT,
    (S.RUNNING, Done): S.ABSENT,
    (S.SPREAD, Done): S.ABSENT,
    (S.LENT, Waits): S.DELAYED,
    (S.RUNNING, Waits): S.DELAYED,
    (S.LENT, Died): S.DEAD,
    (S.RUNNING, Died): S.DEAD,
    (S.LENT, CancelAsked): S.LENT,
    (S.RUNNING, CancelAsked): S.RUNNING,
    (S.SPREAD, CancelAsked): S.SPREAD,
    (S.DELAYED, Done): S.ABSENT,  # cancelled before its start
    (S.READY, Done): S.ABSENT,  # the same
    (S.DEAD, Revived): S.READY,
    (S.DEAD, Dropped): S.ABSENT,
    **{(state, Moved): S.ABSENT for state in S if state is not S.ABSENT},
    # what a race can cause
    (S.ABSENT, Moved): None,
    (S.ABSENT, Adopted): None,
    (S.LENT, Adopted): None,
    (S.RUNNING, Adopted): None,
    (S.DEAD, Adopted): None,
    (S.SPREAD, Adopted): None,
    (S.ABSENT, Orphaned): None,
    (S.READY, Orphaned): None,
    (S.DELAYED, Orphaned): None,
    (S.DEAD, Orphaned): None,
    (S.ABSENT, Done): None,
    (S.ABSENT, Waits): None,
    (S.ABSENT, Died): None,
    (S.ABSENT, Returned): None,
    (S.ABSENT, CancelAsked): None,
    (S.ABSENT, Revived): None,
    (S.ABSENT, Dropped): None,
    (S.DEAD, Done): None,
    (S.DEAD, Waits): None,
    (S.DEAD, Died): None,
    (S.DEAD, Returned): None,
    (S.DEAD, CancelAsked): None,
    (S.READY, Waits): None,
    (S.READY, Died): None,
    (S.READY, Returned): None,
    (S.DELAYED, Waits): None,
    (S.DELAYED, Died): None,
    (S.DELAYED, Returned): None,
    (S.RUNNING, Returned): None,
    (S.DELAYED, Revived): None,
    (S.READY, Revived): None,
    (S.LENT, Revived): None,
    (S.RUNNING, Revived): None,
    (S.SPREAD, Revived): None,
    (S.DELAYED, Dropped): None,
    (S.READY, Dropped): None,
    (S.LENT, Dropped): None,
    (S.RUNNING, Dropped): None,
    (S.SPREAD, Dropped): None,
}


@dataclass(slots=True)
class Ending:
    """What a slice tells its engine about a job that has just ended.

    `record`: as it was; `parts`: of an "all" job; `number`: the round that it, or the job it is a part of, was, else 0;
    `displaced`: the dead letter that made room for this one.
    """

    record: Record
    outcome: Outcome
    at_ms: int
    parts: dict[Life, Outcome] | None
    number: int
    displaced: Record | None = None
