"""Addresses: where others reach this node, what a name stands for, and whether somebody listens at an endpoint.

Names are looked up here, in the loop's own threads, and never by libzmq, which would keep its one I/O thread (and so
the beats) waiting for a slow name server.

A connect is *refused* if the host itself says that nobody listens. Only that is told: silence, no route, no descriptor
left and success all show nothing. A killed process loses its connections a moment before its listener, and in that
moment the system still takes connects for it; so one counts as taken only when somebody speaks, and is tried again when
it is reset.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .discovery import ANY_HOST, address_of, endpoint_of, nearby

PROBE_S = 1.0
AGAIN_S = 0.01
"""Between two connects, where the first one was taken and reset."""
FAR_AWAY = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""Addresses of documentation, which lie beyond every router: what leads there is the way out of this host."""
NAMED_MAX_COUNT = 100
"""Addresses behind one name that are used."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where others reach a node. See `Member`."""

    endpoint: str
    beats: str
    advertised: bool


def place_of(inbox: str, beats: str, advertise: str | None, seeds: Iterable[str]) -> Place:
    """Where others reach what is bound here.

    Args:
        inbox, beats: the endpoints as bound.
        advertise: what a person says. Beats are one port above; port 0: the ports that are bound.
        seeds: endpoints with addresses, no names.

    A node that has bound every address of its host is reached at that of the interface which leads to the first seed
    that is not on this host; without one, at that of the interface which leads out of the host; without one, at the
    loopback address.
    """
    host, port = address_of(inbox) or ("", 0)
    _, beats_port = address_of(beats) or ("", 0)
    if advertise is not None:
        said, said_port = address_of(advertise) or ("", 0)
        if said_port:
            port, beats_port = said_port, said_port + 1
        return Place(endpoint_of(said, port), endpoint_of(said, beats_port), True)
    if host in ANY_HOST:
        host = _own_address(host, seeds)
    return Place(endpoint_of(host, port), endpoint_of(host, beats_port), False)


def _own_address(bound: str, seeds: Iterable[str]) -> str:
    """The address of this host towards others; `bound` is one that stands for all."""
    far = [address[0] for address in map(address_of, seeds) if address is not None and not is_loopback(address[0])]
    families = (socket.AF_INET6, socket.AF_INET) if bound == "::" else (socket.AF_INET,)
    for target in (*far[:1], *(FAR_AWAY[family] for family in families)):
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        if family in families:
            found = _address_towards(target, family)
            if found is not None:
                return found
    return ANY_HOST[bound]


def _address_towards(host: str, family: socket.AddressFamily) -> str | None:
    """The address of the interface that leads there. Nothing is sent: a UDP socket connects by itself."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect((host, 9))
            address: str = asking.getsockname()[0]
    except OSError:
        return None
    # A link-local address means something else on every host.
    return None if ipaddress.ip_address(address.partition("%")[0]).is_link_local else address


def is_ip(host: str) -> bool:
    """Whether it is an address, no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this host reaches it."""
    return host == "localhost" or (is_ip(host) and ipaddress.ip_address(host).is_loopback)


async def resolve(endpoint: str) -> list[str]:
    """The endpoints with addresses that an endpoint stands for: itself, or one for each address of its name.

    Raises:
        OSError: the name is not known (now).
    """
    host, port = address_of(endpoint) or ("", 0)
    if is_ip(host) or host in ANY_HOST:
        return [nearby(endpoint)]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    hosts = [str(address[0]) for _, _, _, _, address in found]
    return [endpoint_of(host, port) for host in list(dict.fromkeys(hosts))[:NAMED_MAX_COUNT] if is_ip(host)]


async def is_refused(endpoint: str, within_s: float = PROBE_S) -> bool:
    """Whether the host of the endpoint refuses a plain connect; of a name, each of its addresses.

    Cost: a connect, `within_s` at most.
    """
    try:
        async with asyncio.timeout(within_s):
            near = await resolve(endpoint)
            answers = [await _refuses(one) for one in near]
    except (OSError, TimeoutError):
        return False
    return bool(answers) and all(answers)


async def _refuses(endpoint: str) -> bool:
    """Connect until it is clear: somebody speaks there (libzmq begins by itself), or the connect is refused."""
    host, port = address_of(endpoint) or ("", 0)
    loop = asyncio.get_running_loop()
    while True:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as trying:
            trying.setblocking(False)
            try:
                await loop.sock_connect(trying, (host, port))
                if await loop.sock_recv(trying, 1):
                    return False
            except ConnectionRefusedError:
                return True
            except ConnectionError:  # it was taken by a listener that has gone since
                pass
        await asyncio.sleep(AGAIN_S)


async def all_refused(endpoints: Sequence[str], within_s: float) -> list[bool]:
    """`is_refused` of each, all at once."""
    return list(await asyncio.gather(*(is_refused(endpoint, within_s) for endpoint in endpoints)))
