"""The certificates that this machine signs itself: what they say, for how long they are kept, and who can read them."""

import ssl
import stat
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest

from streamer.errors import ConfigError
from streamer.server.self_signed import (
    AUTHORITY,
    AUTHORITY_GOOD_FOR,
    BY_ADDRESS,
    BY_NAME,
    GOOD_FOR,
    certificates_for,
    certificates_of,
    fingerprint,
)

x509 = pytest.importorskip("cryptography.x509")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = ["kitchen.local", "localhost", "127.0.0.1", "::1", "192.168.1.5"]


def made(tmp_path, names=NAMES, now=NOW) -> tuple[str, str, str]:
    """The certificate for names, that for addresses, and the authority's."""
    found = certificates_for(names, tmp_path / "state", now)
    (by_name, authority), (by_address, again) = certificates_of(found.by_name), certificates_of(found.by_address)
    assert authority == again
    return by_name, by_address, authority


def read(certificate):
    return x509.load_pem_x509_certificate(certificate.encode())


def names_of(certificate) -> list[str]:
    return [
        str(one.value)
        for one in read(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    ]


def test_each_is_for_its_names_and_the_authority_for_no_site_of_the_internet(tmp_path):
    by_name, by_address, authority = made(tmp_path)
    assert (names_of(by_name), names_of(by_address)) == (NAMES[:2], NAMES[2:])
    limits = read(authority).extensions.get_extension_for_class(x509.NameConstraints)
    assert limits.critical
    permitted = [one.value for one in limits.value.permitted_subtrees]
    assert [one for one in permitted if isinstance(one, str)] == NAMES[:2]
    assert all(one.is_private or str(one) == "100.64.0.0/10" for one in permitted if not isinstance(one, str))
    for one in (by_name, by_address):
        read(one).verify_directly_issued_by(read(authority))
        assert not read(one).extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert read(one).not_valid_after_utc - read(one).not_valid_before_utc <= timedelta(days=825)  # Apple's limit
    assert read(authority).extensions.get_extension_for_class(x509.BasicConstraints).value.ca  # iPhones trust no other


def shaken_hands(client, server, name) -> bool:
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking, answering = client.wrap_bio(one, other, server_hostname=name), server.wrap_bio(other, one, True)
    for side in (asking, answering) * 3:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError:
            return False
    return asking.version() == "TLSv1.3"


def test_clients_that_trusted_the_authority_once_accept_the_machine_at_every_later_address(tmp_path):
    first = certificates_for(NAMES, tmp_path)
    client = ssl.create_default_context(cadata=certificates_of(first.by_address)[-1])
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # what Python asks for from 3.13 on
    for moved in ([], ["10.1.2.3"], ["fd00::7"]):
        found = certificates_for([*NAMES, *moved], tmp_path)
        for path, names in ((found.by_name, NAMES[:2]), (found.by_address, [*NAMES[2:], *moved])):
            server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.load_cert_chain(path)
            assert [name for name in names if not shaken_hands(client, server, name)] == []
            assert not shaken_hands(client, server, "example.org")


def test_only_this_user_reads_them_and_no_key_is_shown(tmp_path):
    made(tmp_path)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert sorted(file.name for file in (tmp_path / "state").iterdir()) == sorted((AUTHORITY, BY_NAME, BY_ADDRESS))
    for file in (tmp_path / "state").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert "PRIVATE KEY" in file.read_text()
        assert "PRIVATE" not in "".join(certificates_of(file))


def test_what_was_accepted_stays_while_the_machine_moves_about(tmp_path):
    by_name, by_address, authority = made(tmp_path)
    assert made(tmp_path) == (by_name, by_address, authority)
    elsewhere = [*NAMES[:4], "10.0.0.7"]
    moved = made(tmp_path, elsewhere)
    assert (moved[0], moved[2]) == (by_name, authority), "who accepted the name is not asked again"
    assert moved[1] != by_address
    assert set(names_of(moved[1])) == {*NAMES[2:], "10.0.0.7"}
    assert made(tmp_path) == moved, "back home: the address is still in it"
    assert made(tmp_path, elsewhere) == moved
    named = made(tmp_path, [*NAMES, "captions.lan"])
    assert named[2] != authority, "a name that it may not vouch for takes a new authority"
    assert made(tmp_path) == made(tmp_path, [*NAMES, "captions.lan"]) == named
    assert made(tmp_path, [*NAMES, "198.51.100.7"])[2] != named[2], "so does an address of the internet"


def test_each_is_renewed_before_it_runs_out(tmp_path):
    by_name, by_address, authority = made(tmp_path)
    assert made(tmp_path, now=NOW + GOOD_FOR - timedelta(days=9)) == (by_name, by_address, authority)
    renewed = made(tmp_path, now=NOW + GOOD_FOR - timedelta(days=7))
    assert (renewed[0] != by_name, renewed[1] != by_address, renewed[2]) == (True, True, authority)
    late = made(tmp_path, now=NOW + AUTHORITY_GOOD_FOR - timedelta(days=10))
    assert late[2] == authority
    assert read(late[0]).not_valid_after_utc == read(authority).not_valid_after_utc
    assert made(tmp_path, now=NOW + AUTHORITY_GOOD_FOR - timedelta(days=7))[2] != authority
    assert made(tmp_path)[2] != authority, "a clock that was wrong"


@pytest.mark.parametrize("content", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"])
@pytest.mark.parametrize("name", [AUTHORITY, BY_NAME, BY_ADDRESS, "self-signed.pem"])
def test_a_damaged_one_is_replaced(tmp_path, name, content):
    made(tmp_path)
    (tmp_path / "state" / name).write_text(content)
    for one in made(tmp_path):
        assert len(fingerprint(one)) == 3 * 32 - 1
    (tmp_path / "state" / name).write_text((tmp_path / "state" / BY_NAME).read_text())  # whatever that is good for
    made(tmp_path)


def test_the_one_that_an_earlier_version_made_is_used_while_it_is_good(tmp_path):
    """It was for everything, and phones accepted or installed it."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, title = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    whom = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("192.168.1.5"))])
    old = (
        x509.CertificateBuilder(title, title, key.public_key(), 1, NOW, NOW + GOOD_FOR)
        .add_extension(whom, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    content = key.private_bytes(pem, form, serialization.NoEncryption()) + old.public_bytes(pem)
    (tmp_path / "self-signed.pem").write_bytes(content)
    found = certificates_for(["localhost", "192.168.1.5"], tmp_path, NOW)
    assert found.by_name == found.by_address == tmp_path / "self-signed.pem"
    assert certificates_of(found.by_name) == [old.public_bytes(pem).decode()]
    assert [file.name for file in tmp_path.iterdir()] == ["self-signed.pem"]
    assert certificates_for(["localhost", "192.168.1.6"], tmp_path, NOW).by_name == tmp_path / BY_NAME


def test_the_fingerprint_is_what_browsers_show(tmp_path):
    from cryptography.hazmat.primitives.hashes import SHA256

    certificate = made(tmp_path)[0]
    assert fingerprint(certificate) == read(certificate).fingerprint(SHA256()).hex(":").upper()


def test_what_is_missing_is_said_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--tls self-signed: cannot keep .*: ") as caught:
        certificates_for(NAMES, tmp_path / "file" / "state")
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ConfigError, match=r"pip install '.\[phone\]'"):
        certificates_for(NAMES, tmp_path)
