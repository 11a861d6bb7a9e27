"""Where others reach the server, and the server over a certificate that was made here."""

import ipaddress
import socket
import ssl

import pytest
from websockets.sync.client import connect

from streamer.server.self_signed import fingerprint
from streamer.server.tls import page_addresses, reached_at


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_nobody_reaches_loopback(host):
    assert reached_at(host) is None
    assert page_addresses(host, 8765, secure=False)[1] == ""


def test_one_address_is_where_it_is_reached():
    assert page_addresses("192.0.2.7", 1, secure=True) == ("https://192.0.2.7:1",) * 2
    assert page_addresses("fd00::7", 2, secure=False) == ("http://[fd00::7]:2",) * 2


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_on_all_addresses_it_is_that_of_this_machine(host):
    here, outside = page_addresses(host, 8765, secure=True)
    assert here == "https://localhost:8765"
    name = outside.removeprefix("https://").removesuffix(":8765").strip("[]")
    assert name == reached_at(host)
    if name != socket.gethostname():  # in no network
        assert not ipaddress.ip_address(name).is_unspecified


def test_the_server_with_a_certificate_of_its_own(serve):
    pytest.importorskip("cryptography")
    token = "a-long-token"
    server = serve(tls="self-signed", host="0.0.0.0", token=token, hosts=["captions.lan", "not a name"])
    assert server.tls
    assert server.url == f"https://localhost:{server.port}"
    assert server.link("/mic?source=hall", outside=True).startswith(f"{server.outside_url}/mic?source=hall&code=")
    trust = ssl.create_default_context(cadata=server.tls.certificate)
    for name in ("localhost", "127.0.0.1", "captions.lan"):
        address = f"wss://{name}:{server.port}/ws"
        with (
            socket.create_connection(("127.0.0.1", server.port)) as plain,
            connect(address, sock=plain, ssl=trust, additional_headers={"Authorization": f"Bearer {token}"}) as one,
        ):
            assert "hello" in one.recv(10)
    assert serve(tls="self-signed").tls.fingerprint == server.tls.fingerprint  # kept
    shown = {name: fingerprint(presented(server.port, name)) for name in ("localhost", "captions.lan", "127.0.0.1")}
    assert set(shown.values()) == {server.tls.fingerprint, server.tls.name_fingerprint}
    assert shown["127.0.0.1"] == server.tls.fingerprint
    assert shown["localhost"] == shown["captions.lan"] == server.tls.name_fingerprint


def presented(port, name) -> str:
    """The certificate that a client gets that opens a name or an address."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        anybody.wrap_socket(plain, server_hostname=name) as secure,
    ):
        return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True))
