"""What has to happen in worlds, or they show nothing: names of what is counted in `World.seen`.

A checker only judges what happens. So a run of many seeds fails where one of these never did: the workload, or the
faults, have a hole.
"""

from __future__ import annotations

SOMETIMES = (
    *("retry", "snooze", "dead", "revived", "discarded", "late verdict ignored", "dead letter made room"),
    *("cancel: waiting", "cancel: delayed", "cancel: lent", "cancel: spread", "cancel answered late", "cannot stop"),
    *("batch", "flood", "same id twice", "spread", "round", "round overdue by periods", "round overran its period"),
    *("round skipped by a person", "round skipped by a busy member", "round awaited", "period changed"),
    *("task gone", "job of a task gone"),
    *("task stopped", "task stopped while it ran", "task stopped by an error", "task started"),
    *("refused: unknown_task", "refused: queue_full", "refused: too_large", "refused: params_invalid"),
    *("refused: already_queued", "refused: leaving", "too many waiters", "result forgotten", "left", "caller gave up"),
    *("client repeats", "client gave up", "client vanished", "connection lost", "garbage", "garbage refused"),
    *("senseless message", "several messages in a frame", "frame said twice", "frame lost", "welcome"),
    *("pause", "tick early", "tick twice", "tick late", "no slots", "enqueue before joining"),
    *("crash", "crash between two effects", "restart at the same endpoint", "leave", "join of a new node"),
    *("loop blocked", "beat of a late loop", "lagging", "lagging no more", "whole host frozen"),
    *("cut", "one-way cut", "split", "bridge", "flap", "swizzle", "connections lost", "false hint"),
    *("stale frame", "said again over the next connection", "numbered said again", "beat dropped"),
    *("beat of a stranger", "knock", "views compared", "probe refused", "probe accepted", "probe without an answer"),
    *("asked for another", "second opinion", "end of a connection never seen", "end of a connection seen late"),
    *("joined", "suspected", "refuted", "died: refused", "died: silent", "died: told", "died: replaced"),
    *("reborn", "farewell heard", "doubtful after a pause", "confirmed", "question to all", "answer of all"),
    *("answer that names who is silent", "agreed after faults"),
    *("job ran elsewhere", "spread over several", "takeover", "adoption", "owner change", "two owners met"),
    *("hand-over on leave", "reconcile", "degraded", "not accepted", "job lost with all its holders"),
)
"""What has to have happened in one seed of many; what never does is a hole in the workload."""

RARELY = (
    *("pause of minutes", "loop blocked too long", "heart silent", "two processes with one id", "identity taken"),
    *("50 nodes", "idle", "beat above the bound"),
    *("excused: P2: a job begins again after its end", "excused: P2: a job begins while it runs"),
)
"""The same, in one of very many."""
