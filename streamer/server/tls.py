"""TLS of the server: files that the settings name, or a certificate of our own; and where others reach the machine."""

import re
import socket
import ssl
from dataclasses import dataclass

from streamer.errors import ConfigError
from streamer.server.access import is_address, is_loopback
from streamer.server.self_signed import certificates_for, certificates_of, fingerprint
from streamer.settings.deliveries import state_directory
from streamer.settings.server import ServerSettings

_WILDCARDS = {"0.0.0.0": socket.AF_INET, "::": socket.AF_INET6}
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,250}[A-Za-z0-9])?")  # what a certificate can say


@dataclass(frozen=True, slots=True)
class Tls:
    """What the server needs. Of certificates that were made here, "" for those of others: `certificate` is the one that
    phones may trust, `fingerprint` of what a browser is shown that opens an address, `name_fingerprint` a host name.
    """

    context: ssl.SSLContext
    certificate: str = ""
    fingerprint: str = ""
    name_fingerprint: str = ""


def open_tls(settings: ServerSettings) -> Tls | None:
    """The TLS of the settings, None without. Raises ConfigError that names the option."""
    if settings.tls is not None:
        return _self_signed(settings)
    if settings.tls_cert is None or settings.tls_key is None:  # the settings hold both or neither
        return None
    for option, file in (("--tls-cert", settings.tls_cert), ("--tls-key", settings.tls_key)):
        try:
            with open(file, "rb"):
                pass
        except OSError as exc:
            raise ConfigError(f"{option}: cannot read {file!r}: {exc.strerror}; give a PEM file") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=lambda: b"")
    except (ssl.SSLError, OSError):
        raise ConfigError(
            f"--tls-cert: {settings.tls_cert!r} and --tls-key: {settings.tls_key!r} are no PEM certificate and its key"
        ) from None
    return Tls(context)


def _self_signed(settings: ServerSettings) -> Tls:
    made = certificates_for(_names(settings), state_directory())
    by_name, by_address = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2))
    for context, path in ((by_name, made.by_name), (by_address, made.by_address)):
        try:
            context.load_cert_chain(path)
        except (ssl.SSLError, OSError):
            raise ConfigError(f"--tls self-signed: {path} cannot be used; delete it, and a new one is made") from None

    def choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        if name is not None and not is_address(name):  # browsers say host names only (RFC 6066)
            connection.context = by_name

    by_address.sni_callback = choose
    for_names, for_addresses = certificates_of(made.by_name), certificates_of(made.by_address)
    return Tls(by_address, for_addresses[-1], fingerprint(for_addresses[0]), fingerprint(for_names[0]))


def reached_at(host: str) -> str | None:
    """The address by which others reach a server that binds to `host`; None: nobody does.

    Of several networks it is the one with the default route. Nothing is sent to learn that.
    """
    if is_loopback(host):
        return None
    if host not in _WILDCARDS:
        return host
    for family, far in ((socket.AF_INET, "198.51.100.1"), (_WILDCARDS[host], "2001:db8::1")):  # RFC 5737, 3849
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((far, 9))
                return str(probe.getsockname()[0])
        except OSError:  # not in such a network
            continue
    return socket.gethostname()


def page_addresses(host: str, port: int, *, secure: bool) -> tuple[str, str]:
    """Where a person on this machine finds the pages, and where others in the network do, "" where they cannot."""
    start, outside = "https" if secure else "http", reached_at(host)
    found = ["localhost" if host in _WILDCARDS else host, *([outside] if outside else [])]
    urls = [f"{start}://{f'[{name}]' if ':' in name else name}:{port}" for name in found]
    return urls[0], urls[1] if outside else ""


def _names(settings: ServerSettings) -> list[str]:
    """Host names and addresses by which the machine is known, each once."""
    own = socket.gethostname()
    given = [f"{own.removesuffix('.local')}.local", own, *settings.hosts, "localhost", "127.0.0.1", "::1"]
    reached = reached_at(settings.host)
    given += [reached] if reached else []
    bare = [name.strip("[]").lower() for name in given]
    return list(dict.fromkeys(name for name in bare if is_address(name) or _HOST_NAME.fullmatch(name)))
