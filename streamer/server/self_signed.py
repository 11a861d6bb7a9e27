"""A certificate that this machine signs itself (`--tls self-signed`), for browsers in its own network.

It names the machine as others reach it and is kept until it runs out or a name is missing, so that a phone which
accepted it once is not asked again. Browsers cannot know who made it: they warn, and people compare the fingerprint.

iPhones open no websocket under a certificate that was merely accepted; theirs has to be installed and trusted, which
they allow for certificates of an authority only. So it says to be one (`basicConstraints`), of no name but its own
(`nameConstraints`, RFC 5280 4.2.1.10): whoever took the key could not pretend to be somebody else with it.

The work is that of the package `cryptography`, which is optional (`streamer[phone]`).
"""

import hashlib
import os
import secrets
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from streamer.errors import ConfigError
from streamer.settings.deliveries import make_private

if TYPE_CHECKING:
    from cryptography import x509

FILE = "self-signed.pem"  # the key and the certificate
GOOD_FOR = timedelta(days=820)  # Apple takes at most 825
RENEWED_BEFORE = timedelta(days=7)
CLOCKS_DIFFER = timedelta(days=1)
MISSING = "--tls self-signed: needs cryptography: pip install '.[phone]' in Streamer's folder (or give --tls-cert)"


def certificate_for(names: Sequence[str], folder: Path, now: datetime | None = None) -> Path:
    """The PEM file with key and certificate for host names and addresses; made where there is none that is good.

    Raises ConfigError: it cannot be made, or not be kept.
    """
    now = now or datetime.now(UTC)
    path = folder / FILE
    try:
        if not _still_good(path, names, now):
            make_private(folder)
            _replace(path, _made(names, now))
    except ImportError:
        raise ConfigError(MISSING) from None
    except OSError as error:
        raise ConfigError(f"--tls self-signed: cannot keep {path}: {error.strerror}; see XDG_STATE_HOME") from None
    return path


def certificate_alone(path: Path) -> str:
    """The certificate of a PEM file without its key."""
    text = path.read_text("ascii")
    return text[text.index(ssl.PEM_HEADER) :]


def fingerprint(certificate: str) -> str:
    """The SHA-256 of a PEM certificate as browsers show it."""
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


def _still_good(path: Path, names: Sequence[str], now: datetime) -> bool:
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(certificate_alone(path).encode())
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):  # damaged: a new one mends that
        return False
    lasts = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEWED_BEFORE
    return lasts and {_general_name(name) for name in names} <= set(found)


def _made(names: Sequence[str], now: datetime) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    # the number tells several of them apart in a phone's settings
    title = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Streamer {names[0][:40]} {secrets.token_hex(2)}")])
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(title)
        .issuer_name(title)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_DIFFER)
        .not_valid_after(now - CLOCKS_DIFFER + GOOD_FOR)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.NameConstraints([_general_name(name, subtree=True) for name in names], None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=False, decipher_only=False, **usage),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(subject_key, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    return key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + certificate.public_bytes(pem)


def _general_name(name: str, *, subtree: bool = False) -> "x509.GeneralName":
    """A host name or an address as certificates have it; `subtree`: as a constraint on names."""
    from cryptography import x509

    try:
        address: IPv4Address | IPv6Address = ip_address(name)
    except ValueError:
        return x509.DNSName(name)
    return x509.IPAddress(ip_network(address) if subtree else address)


def _replace(path: Path, content: bytes) -> None:
    """Write a file for this user only, whole or not at all."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    beside.replace(path)
