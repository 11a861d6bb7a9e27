"""What one address may take of the server: sockets at a time, places among readers and senders, tries at the token.

Pure: `now` gives seconds that never go back. The table holds at most `MAX_KNOWN` addresses that have no socket open;
who has one open is bounded by the sockets there can be. Who holds a whole IPv6 network (/64) is one address.
"""

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from streamer.server.access import Access, Allowance, Credentials, Request, is_loopback

MAX_KNOWN = 4096
TRIES, TRIES_PER_S = 5.0, 0.1  # wrong tokens that are looked at: so many at once, one more every 10 s
LOOPBACK_TRIES, LOOPBACK_TRIES_PER_S = 20.0, 1.0  # programs of this machine, or a proxy with many behind it


@dataclass(slots=True)
class _Known:
    tries: Allowance
    sockets: int = 0
    places: dict[str, int] = field(default_factory=dict)  # by what they are for


class Addresses:
    """The table of one server. `sockets`: the most that an address may have open at a time, whatever they are for.

    `proxies`: addresses behind which there are many; as loopback, where that may be so. Such ones may have
    `shared_sockets`.
    """

    def __init__(
        self, now: Callable[[], float], sockets: int, shared_sockets: int, proxies: frozenset[str] = frozenset()
    ) -> None:
        self._now, self._sockets, self._shared_sockets, self._proxies = now, sockets, shared_sockets, proxies
        self._known: dict[str, _Known] = {}  # the one that was asked for last stands last

    def __len__(self) -> int:
        return len(self._known)

    def connect(self, address: str) -> bool:
        """One more socket; False: the address has too many open. Who got True calls `disconnect` once."""
        known = self._of(address)
        if known.sockets >= (self._shared_sockets if self._shared(address) else self._sockets):
            return False
        known.sockets += 1
        return True

    def disconnect(self, address: str) -> None:
        """A socket that `connect` allowed is closed."""
        self._of(address).sockets -= 1
        self._forget()

    def enter(self, address: str, kind: str, most: int) -> bool:
        """Take a place of a `kind`, of which nobody has more than `most`; False: the address has its share.

        Who got True calls `leave` once.
        """
        known = self._of(address)
        if known.places.get(kind, 0) >= (most if self._shared(address) else min(most, self._sockets)):
            return False
        known.places[kind] = known.places.get(kind, 0) + 1
        return True

    @contextmanager
    def place(self, address: str, kind: str, places: int, most: int, taken: int) -> Iterator[str]:
        """Hold a place of a kind, of which there are `places`; gives why there is none, "" where there is."""
        if taken >= places:
            yield "too many clients"
        elif not self.enter(address, kind, most):
            yield "too many clients of your address"
        else:
            try:
                yield ""
            finally:
                self.leave(address, kind)

    def leave(self, address: str, kind: str) -> None:
        """Give a place back."""
        self._of(address).places[kind] -= 1

    def wait_s(self, address: str) -> float:
        """Seconds until a token from this address is looked at again; 0: now."""
        return self._of(address).tries.wait_s()

    def tried(self, address: str) -> None:
        """The address gave a wrong token."""
        self._of(address).tries.spend()

    def _shared(self, address: str) -> bool:
        return is_loopback(address.removeprefix("::ffff:")) or address in self._proxies

    def _of(self, address: str) -> _Known:
        key = _network(address)
        known = self._known.pop(key, None)
        if known is None:
            tries = (LOOPBACK_TRIES, LOOPBACK_TRIES_PER_S) if self._shared(address) else (TRIES, TRIES_PER_S)
            known = _Known(Allowance(*tries, self._now))
        self._known[key] = known
        self._forget()
        return known

    def _forget(self) -> None:
        """Over the bound those go that have no socket open, who came last longest ago first."""
        if len(self._known) <= MAX_KNOWN:
            return
        for key in [key for key, known in self._known.items() if not known.sockets][: len(self._known) - MAX_KNOWN]:
            if key != next(reversed(self._known)):
                del self._known[key]


@dataclass(frozen=True, slots=True)
class Entrance:
    """What one server asks of every HTTP request, whichever library reads it. `refused` is told why one is not let in.

    `proxies`: addresses whose X-Forwarded-For is believed.
    """

    access: Access
    addresses: Addresses
    proxies: frozenset[str]
    refused: Callable[[str], None]

    def wait_s(self, asked: Request, *, coded: bool = False) -> float:
        """Seconds until what is given is looked at again: too many were wrong; 0: now. `coded`: a link's code is given.

        What the right token gets then is no other answer than a wrong one: it would be a way to tell them apart.
        """
        wait_s = self.addresses.wait_s(asked.address)
        if not wait_s or not (coded or self.access.credentials(asked) in (Credentials.WRONG, Credentials.TOKEN)):
            return 0.0
        self.refused("throttled")
        return wait_s


def _network(address: str) -> str:
    """What counts as one address: an IPv4 address, a /64 of IPv6; anything else by its text."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
