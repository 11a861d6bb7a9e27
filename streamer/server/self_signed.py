"""Certificates that this machine signs itself (`--tls self-signed`), for browsers in its own network.

An authority is made once. It signs two certificates: one for the host names of the machine, which a browser says when
it connects, and one for its addresses, which it does not say. So what a browser accepted under a name is not asked
again when the machine gets another address, and a phone that trusts the authority notices nothing at all. Each is kept
until it runs out or a name is missing; then the names that it had stay in the next. Browsers cannot know who made
them: they warn, and people compare the fingerprint.

iPhones open no websocket under a certificate that was merely accepted; they have to install and trust one, which they
allow for authorities only. This one can vouch for this machine's names and for addresses that every network may use for
itself (`nameConstraints`, RFC 5280 4.2.1.10): whoever took its key could not pretend to be a site of the internet.

The work is that of the package `cryptography`, which is optional (`streamer[phone]`).
"""

import hashlib
import os
import secrets
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from streamer.errors import ConfigError
from streamer.settings.deliveries import make_private

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

AUTHORITY, BY_NAME, BY_ADDRESS = "authority.pem", "by-name.pem", "by-address.pem"  # each with its key
EARLIER = "self-signed.pem"  # of versions that had one for everything: used as long as it is good
GOOD_FOR = timedelta(days=820)  # Apple takes at most 825
AUTHORITY_GOOD_FOR = timedelta(days=3650)
RENEWED_BEFORE = timedelta(days=7)
CLOCKS_DIFFER = timedelta(days=1)
NAMES_KEPT = 50  # of those that a certificate had before
# Addresses that every network may use for itself: RFC 1918, 6598, 3927, 4193, 4291, and loopback.
PRIVATE = (
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8"),
    *("fc00::/7", "fe80::/10", "::1/128"),
)
MISSING = "--tls self-signed: needs cryptography: pip install '.[phone]' in Streamer's folder (or give --tls-cert)"

_Name = str | IPv4Address | IPv6Address
_Permitted = str | IPv4Network | IPv6Network
_Extension = TypeVar("_Extension", bound="x509.ExtensionType")


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files with a key, its certificate and behind that the authority's. An earlier version's is both at once."""

    by_name: Path
    by_address: Path


def certificates_for(names: Sequence[str], folder: Path, now: datetime | None = None) -> Certificates:
    """The certificates for host names and addresses, some of each; made where there are none that are good.

    Raises ConfigError: they cannot be made, or not be kept.
    """
    now = now or datetime.now(UTC)
    wanted = [_name(name) for name in names]
    try:
        earlier = _read(folder / EARLIER, now)
        if earlier is not None and set(wanted) <= set(earlier.names):
            return Certificates(folder / EARLIER, folder / EARLIER)
        make_private(folder)
        authority = _authority(folder / AUTHORITY, wanted, now)
        host_names = [name for name in wanted if isinstance(name, str)]
        by_name = _certificate(folder / BY_NAME, host_names, authority, now)
        addresses = [name for name in wanted if not isinstance(name, str)]
        return Certificates(by_name, _certificate(folder / BY_ADDRESS, addresses, authority, now))
    except ImportError:
        raise ConfigError(MISSING) from None
    except OSError as error:
        raise ConfigError(f"--tls self-signed: cannot keep {folder}: {error.strerror}; see XDG_STATE_HOME") from None


def certificates_of(path: Path) -> list[str]:
    """The certificates of a PEM file without its key: what a browser is shown, and last what a phone may trust."""
    return [ssl.PEM_HEADER + part for part in path.read_text("ascii").split(ssl.PEM_HEADER)[1:]]


def fingerprint(certificate: str) -> str:
    """The SHA-256 of a PEM certificate as browsers show it."""
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


@dataclass(frozen=True, slots=True)
class _Signed:
    """A key, its certificate, and the one of who signed that (itself, where nobody else did)."""

    key: "EllipticCurvePrivateKey"
    certificate: "x509.Certificate"
    issuer: "x509.Certificate"

    @property
    def names(self) -> list[_Name]:
        """Whom it is for; nobody, where it is an authority's."""
        from cryptography import x509

        found = self._extension(x509.SubjectAlternativeName)
        return [_name(str(one.value)) for one in found] if found else []

    @property
    def permitted(self) -> list[_Permitted]:
        """Whom it may vouch for, as an authority."""
        from cryptography import x509

        found = self._extension(x509.NameConstraints)
        return [one.value for one in found.permitted_subtrees or ()] if found else []

    def _extension(self, kind: type[_Extension]) -> _Extension | None:
        """What the certificate says of one kind; None: nothing."""
        from cryptography import x509

        try:
            return self.certificate.extensions.get_extension_for_class(kind).value
        except x509.ExtensionNotFound:
            return None

    def may_sign(self, name: _Name) -> bool:
        """Whether it may vouch for a name or an address."""
        return any(name == one if isinstance(one, str) else _within(name, one) for one in self.permitted)


def _authority(path: Path, wanted: Sequence[_Name], now: datetime) -> _Signed:
    """The authority, which may vouch for everybody who is wanted."""
    from cryptography import x509

    kept = _read(path, now)
    if kept is not None and all(kept.may_sign(name) for name in wanted):
        return kept
    private = [ip_network(text) for text in PRIVATE]
    others = [name for name in wanted if not any(_within(name, network) for network in private)]
    own: list[_Permitted] = [name if isinstance(name, str) else ip_network(name) for name in others]
    permitted = dict.fromkeys([*own, *private, *(kept.permitted if kept else ())])
    limits = x509.NameConstraints([_general_name(one) for one in permitted], None)
    authority = x509.BasicConstraints(ca=True, path_length=0)
    return _sign(path, str(wanted[0]), [(authority, True), (limits, True), (_usage("key_cert_sign"), True)], None, now)


def _certificate(path: Path, wanted: Sequence[_Name], authority: _Signed, now: datetime) -> Path:
    """The file with a certificate of the authority's for everybody who is wanted, and whom it was for before."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    kept = _read(path, now)
    before = kept.names if kept else []
    if kept is None or kept.issuer != authority.certificate or not set(wanted) <= set(before):
        names = list(dict.fromkeys([*wanted, *filter(authority.may_sign, before)]))[:NAMES_KEPT]
        server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        whom = x509.SubjectAlternativeName([_general_name(name) for name in names])
        ends = x509.BasicConstraints(ca=False, path_length=None)
        extensions = [(whom, False), (ends, True), (_usage("digital_signature"), True), (server, False)]
        _sign(path, str(wanted[0]), extensions, authority, now)
    return path


def _sign(
    path: Path,
    name: str,
    extensions: Sequence[tuple["x509.ExtensionType", bool]],
    authority: _Signed | None,
    now: datetime,
) -> _Signed:
    """Make a key and a certificate with these extensions (and whether each is critical), and keep both.

    `authority`: who signs it; None: itself.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    # the number tells several of them apart in a phone's settings
    title = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Streamer {name[:40]} {secrets.token_hex(2)}")])
    begin = now - CLOCKS_DIFFER
    signer, issuer, end = key, title, begin + AUTHORITY_GOOD_FOR
    if authority is not None:
        signer, issuer = authority.key, authority.certificate.subject
        end = min(begin + GOOD_FOR, authority.certificate.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder(issuer, title, key.public_key(), x509.random_serial_number(), begin, end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    signed = builder.sign(signer, hashes.SHA256())
    chain = [signed] if authority is None else [signed, authority.certificate]
    pem = serialization.Encoding.PEM
    content = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _replace(path, content + b"".join(one.public_bytes(pem) for one in chain))
    return _Signed(key, signed, chain[-1])


def _read(path: Path, now: datetime) -> _Signed | None:
    """What a file holds; None: there is none, it is damaged (a new one mends that), or it does not hold any longer."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        content = path.read_bytes()
        key, chain = load_pem_private_key(content, None), x509.load_pem_x509_certificates(content)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    lasts = chain[0].not_valid_before_utc <= now < chain[0].not_valid_after_utc - RENEWED_BEFORE
    if not lasts or not isinstance(key, EllipticCurvePrivateKey) or key.public_key() != chain[0].public_key():
        return None
    return _Signed(key, chain[0], chain[-1])


def _usage(purpose: str) -> "x509.KeyUsage":
    from cryptography import x509

    kinds = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    others = ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{kind: kind == purpose for kind in (*kinds, *others)})


def _name(text: str) -> _Name:
    """A host name or an address."""
    try:
        return ip_address(text)
    except ValueError:
        return text


def _within(name: _Name, network: IPv4Network | IPv6Network) -> bool:
    return not isinstance(name, str) and name in network


def _general_name(name: _Name | _Permitted) -> "x509.GeneralName":
    """As certificates have it; a network is a constraint on addresses."""
    from cryptography import x509

    return x509.DNSName(name) if isinstance(name, str) else x509.IPAddress(name)


def _replace(path: Path, content: bytes) -> None:
    """Write a file for this user only, whole or not at all."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    beside.replace(path)
