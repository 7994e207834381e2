"""A network of its own for a few nodes: one namespace per node, joined by veth pairs at a bridge, cut by nftables.

    zhero-PID-n1 [eth0 10.77.0.1]--.
    zhero-PID-n2 [eth0 10.77.0.2]--+-- bridge in zhero-PID-hub
    ...                            '

All of it, the bridge too, is inside namespaces whose names carry the process id of who made them: nothing is seen
outside of them, several runs do not meet, and to delete the namespaces is to delete everything. That is done in the
end, also after a failure or Ctrl-C; what a killed run has left is deleted by the next one.

A cut is one direction of one pair: the receiver's namespace drops what comes from that address, silently, as a network
does that has lost its way. Connections stay open and their ends know nothing of it. `cuts` remembers when what was cut.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

PREFIX = "zhero-"
COMMAND_S = 20.0
"""No command of these takes longer."""

Way = tuple[str, str]
"""From whom to whom."""

RULES = """
table ip zhero {
  set cut { type ipv4_addr; }
  chain input {
    type filter hook input priority 0; policy accept;
    ip saddr @cut drop
  }
}
"""


@dataclass(frozen=True, slots=True)
class Cut:
    """Ways that were cut. `until_s`: when they were mended; instants of `time.monotonic`."""

    ways: frozenset[Way]
    since_s: float
    until_s: float


def tool(name: str) -> str | None:
    """Where a command is: those of administrators are not on everybody's path."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def why_not() -> str:
    """Why this machine can't have such a network; empty: it can."""
    if os.name != "posix" or not Path("/proc/self/ns/net").exists():
        return "there are no network namespaces on this system"
    if os.geteuid():
        return "making network namespaces needs root"
    missing = [name for name in ("ip", "nft") if tool(name) is None]
    if missing:
        return f"{' and '.join(missing)} not found (Debian: apt-get install iproute2 nftables)"
    try:
        with Lab(["one", "two"], "can") as lab:
            lab.cut([("one", "two")])
            lab.heal()
    except (subprocess.SubprocessError, OSError) as error:
        return f"network namespaces can't be made here: {_complaint(error)}"
    return ""


def _complaint(error: Exception) -> str:
    told = getattr(error, "stderr", "") or str(error)
    return " ".join(str(told).split())


class Lab:
    """The network. Use it as a context manager.

    Args:
        names: of the nodes.
        label: tells several networks of one process apart.
    """

    def __init__(self, names: Sequence[str], label: str = "") -> None:
        self.names = list(names)
        self.cuts: list[Cut] = []
        self._prefix = f"{PREFIX}{os.getpid()}-{label}"
        self._address = {name: f"10.77.0.{number}" for number, name in enumerate(names, 1)}
        self._now: frozenset[Way] = frozenset()
        self._since_s = 0.0

    def __enter__(self) -> Self:
        sweep()
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    # --- making and removing --------------------------------------------------------------------------------------

    def _build(self) -> None:
        hub = self._space("hub")
        run("ip", "netns", "add", hub)
        run("ip", "-n", hub, "link", "add", "bridge", "type", "bridge", "forward_delay", "0")
        run("ip", "-n", hub, "link", "set", "bridge", "up")
        for number, name in enumerate(self.names, 1):
            space, port = self._space(name), f"port{number}"
            run("ip", "netns", "add", space)
            run("ip", "-n", hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
            run("ip", "-n", hub, "link", "set", port, "master", "bridge", "up")
            run("ip", "-n", space, "address", "add", f"{self._address[name]}/24", "dev", "eth0")
            run("ip", "-n", space, "link", "set", "lo", "up")
            run("ip", "-n", space, "link", "set", "eth0", "up")
            run(*self.inside(name), "nft", "-f", "-", given=RULES)

    def _remove(self) -> None:
        for name in [*self.names, "hub"]:
            remove(self._space(name))

    def _space(self, name: str) -> str:
        return f"{self._prefix}{name}"

    # --- use ------------------------------------------------------------------------------------------------------

    def address(self, name: str) -> str:
        """Where that node is."""
        return self._address[name]

    def inside(self, name: str) -> list[str]:
        """What stands before a command that is to run in that node's place."""
        return [tool("ip") or "ip", "netns", "exec", self._space(name)]

    def cut(self, ways: Iterable[Way]) -> None:
        """From now on these ways are cut, and no others."""
        wanted = frozenset(ways)
        for name in self.names:
            now, then = ({source for source, target in it if target == name} for it in (self._now, wanted))
            lines = [f"add element ip zhero cut {{ {self._address[it]} }}" for it in sorted(then - now)]
            lines += [f"delete element ip zhero cut {{ {self._address[it]} }}" for it in sorted(now - then)]
            if lines:
                run(*self.inside(name), "nft", "-f", "-", given="\n".join(lines) + "\n")
        now_s = time.monotonic()
        if self._now:
            self.cuts.append(Cut(self._now, self._since_s, now_s))
        self._now, self._since_s = wanted, now_s

    def heal(self) -> None:
        """From now on no way is cut."""
        self.cut(())


def run(*command: str, given: str = "") -> None:
    """Run a command; what it complains of is in the error."""
    whole = [tool(command[0]) or command[0], *command[1:]]
    subprocess.run(whole, check=True, capture_output=True, text=True, input=given, timeout=COMMAND_S)


def remove(space: str) -> None:
    """Delete a namespace, if there is one of that name; what it holds goes with it."""
    if Path("/run/netns", space).exists():
        subprocess.run([tool("ip") or "ip", "netns", "delete", space], capture_output=True, timeout=COMMAND_S)


def sweep() -> None:
    """Delete the namespaces of runs that were killed."""
    for file in Path("/run/netns").glob(f"{PREFIX}*-*"):
        pid = file.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            remove(file.name)
