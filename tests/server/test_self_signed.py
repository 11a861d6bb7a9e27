"""The certificate that this machine signs itself: what it says, for how long it is kept, and who can read it."""

import ssl
import stat
import sys
from datetime import UTC, datetime, timedelta

import pytest

from streamer.errors import ConfigError
from streamer.server.self_signed import GOOD_FOR, certificate_alone, certificate_for, fingerprint

x509 = pytest.importorskip("cryptography.x509")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = ["kitchen.local", "localhost", "127.0.0.1", "::1", "192.168.1.5"]


def made(tmp_path, names=NAMES, now=NOW) -> str:
    return certificate_alone(certificate_for(names, tmp_path / "state", now))


def test_it_is_for_the_names_and_for_nothing_else(tmp_path):
    certificate = x509.load_pem_x509_certificate(made(tmp_path).encode())
    found = certificate.extensions
    names = found.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["kitchen.local", "localhost"]
    assert {str(address) for address in names.get_values_for_type(x509.IPAddress)} == set(NAMES[2:])
    limits = found.get_extension_for_class(x509.NameConstraints)
    assert limits.critical
    assert [str(one.value) for one in limits.value.permitted_subtrees] == [
        *NAMES[:2],
        *("127.0.0.1/32", "::1/128", "192.168.1.5/32"),
    ]
    assert found.get_extension_for_class(x509.BasicConstraints).value.ca  # iPhones trust no other
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc <= timedelta(days=825)  # nor a longer one
    certificate.verify_directly_issued_by(certificate)


def test_clients_that_trust_it_accept_the_server(tmp_path):
    path = certificate_for(NAMES, tmp_path)
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cadata=certificate_alone(path))
    server.load_cert_chain(path)
    for name in NAMES:
        one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
        asking, answering = client.wrap_bio(one, other, server_hostname=name), server.wrap_bio(other, one, True)
        for side in (asking, answering) * 3:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
        assert asking.version() == "TLSv1.3", name


def test_only_this_user_reads_it_and_the_key_is_not_shown(tmp_path):
    path = certificate_for(NAMES, tmp_path / "state", NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert "PRIVATE KEY" in path.read_text()
    assert "PRIVATE" not in certificate_alone(path)


def test_it_is_kept_until_it_runs_out_or_a_name_is_missing(tmp_path):
    first = made(tmp_path)
    assert made(tmp_path) == first
    assert made(tmp_path, NAMES[1:], NOW + timedelta(days=700)) == first
    elsewhere = made(tmp_path, [*NAMES, "10.0.0.7"])
    assert elsewhere != first
    assert made(tmp_path, NAMES, NOW + GOOD_FOR - timedelta(days=9)) == elsewhere
    renewed = made(tmp_path, NAMES, NOW + GOOD_FOR - timedelta(days=7))
    assert renewed != elsewhere
    assert made(tmp_path, NAMES, NOW) != renewed  # a clock that was wrong


@pytest.mark.parametrize("content", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"])
def test_a_damaged_one_is_replaced(tmp_path, content):
    path = certificate_for(NAMES, tmp_path, NOW)
    path.write_text(content)
    assert len(fingerprint(certificate_alone(certificate_for(NAMES, tmp_path, NOW)))) == 3 * 32 - 1


def test_the_fingerprint_is_what_browsers_show(tmp_path):
    certificate = made(tmp_path)
    from cryptography.hazmat.primitives.hashes import SHA256

    shown = x509.load_pem_x509_certificate(certificate.encode()).fingerprint(SHA256()).hex(":").upper()
    assert fingerprint(certificate) == shown


def test_what_is_missing_is_said_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--tls self-signed: cannot keep .*: ") as caught:
        certificate_for(NAMES, tmp_path / "file" / "state")
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ConfigError, match=r"pip install '.\[phone\]'"):
        certificate_for(NAMES, tmp_path)
