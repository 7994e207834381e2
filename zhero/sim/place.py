"""Where processes live, one after another: a machine with a clock, a port, and what is known there of others."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..core.values import NodeId, TaskSpec
from .callers import LocalCaller
from .clock import Clock
from .node import Node


@dataclass(slots=True)
class Place:
    """One address and whoever lives at it.

    Attributes:
        host: machine; places of one host freeze together.
        specs, workers: tasks and slots of a process here, at its start.
        seeds: endpoints that a process is told of at its start.
        node: the process of now; None: nobody has lived here yet. It may be over.
        local: code in that process.
        past: processes before it, the oldest first.
        node_id: kept by the next process, as from a data directory; None: each has one of its own.
    """

    name: str
    host: int
    clock: Clock
    specs: list[TaskSpec]
    workers: int
    advertised: bool = False
    seeds: list[str] = field(default_factory=list[str])
    node: Node | None = None
    local: LocalCaller | None = None
    past: list[Node] = field(default_factory=list[Node])
    node_id: NodeId | None = None

    @property
    def endpoint(self) -> str:
        """Where a process here has its inbox."""
        return f"tcp://{self.name}:7040"

    @property
    def living(self) -> Node | None:
        """The process of now, if it is not over."""
        return self.node if self.node is not None and not self.node.is_over else None
