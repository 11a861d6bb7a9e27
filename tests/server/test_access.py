import pytest

from streamer.errors import ConfigError
from streamer.server.access import Access, Allowance, Request, is_loopback


def ask(host: str = "localhost:8765", origin: str | None = None, query: str = "", bearer: str | None = None) -> Request:
    return Request([host], [] if origin is None else [origin], [] if bearer is None else [f"Bearer {bearer}"], query)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "", "myhost.example"])
def test_other_interfaces_need_a_token(host):
    with pytest.raises(ConfigError, match="--token"):
        Access(host)
    Access(host, "long enough")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"])
def test_loopback_needs_none(host):
    assert is_loopback(host)
    Access(host)


@pytest.mark.parametrize("host", ["localhost:8765", "LOCALHOST", "127.0.0.1:1", "[::1]:8765", "captions.lan:443"])
def test_hosts_that_are_us(host):
    assert Access("127.0.0.1", names=["captions.lan"]).host_allowed(ask(host))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8765",
        "localhost.evil.example",
        "192.168.1.5",
        "",
        "localhost:8765; script-src *",
        "a b",
        "evil@localhost",
    ],
)
def test_hosts_that_are_not(host):
    assert not Access("127.0.0.1").host_allowed(ask(host))


def test_two_host_headers_are_refused():
    assert not Access("127.0.0.1").host_allowed(Request(["localhost", "localhost"], [], [], ""))
    assert not Access("127.0.0.1").host_allowed(Request([], [], [], ""))


def test_behind_a_token_addresses_are_fine_and_names_are_not():
    access = Access("0.0.0.0", "secret-token")
    assert access.host_allowed(ask("192.168.1.5:8765"))
    assert access.host_allowed(ask("[fe80::1]:8765"))
    assert not access.host_allowed(ask("evil.example"))


def test_origins():
    access = Access("127.0.0.1", origins=["https://stream.example"])
    for good in [
        None,
        "http://localhost:8765",
        "HTTP://localhost:8765",
        "https://stream.example",
        "https://stream.example:443",
    ]:
        assert access.origin_allowed(ask(origin=good)), good
    for bad in [
        "null",
        "",
        "http://localhost:3000",
        "http://evil.example",
        "file://",
        "http://stream.example",
        "http://[",
        "x",
    ]:
        assert not access.origin_allowed(ask(origin=bad)), bad
    assert access.origin_allowed(ask("localhost", "http://localhost"))
    assert not access.origin_allowed(Request(["localhost:8765"], ["http://localhost:8765"] * 2, [], ""))


def test_tokens():
    access = Access("127.0.0.1", "geheim-ä")
    assert access.token_given(ask(query="a=1&token=geheim-%C3%A4"))
    assert access.token_given(ask(bearer="geheim-ä"))
    for bad in [
        ask(),
        ask(query="token="),
        ask(query="token=geheim"),
        ask(bearer="x"),
        ask(query="token=x&token=geheim-%C3%A4"),
    ]:
        assert not access.token_given(bad)
    assert Access("127.0.0.1").token_given(ask())


def test_refusals_name_what_is_wrong_and_never_the_token():
    access = Access("127.0.0.1", "secret-token")
    assert access.refusal(ask("evil.example")) == "Host not allowed"
    assert access.refusal(ask(origin="http://evil.example")) == "Origin not allowed"
    assert access.refusal(ask(query="token=wrong")) == "token missing or wrong"
    assert access.refusal(ask(query="token=secret-token")) is None


def test_allowance_refills_with_time():
    now = [0.0]
    allowance = Allowance(2, 1.0, lambda: now[0])
    assert [allowance.spend() for _ in range(3)] == [True, True, False]
    now[0] = 1.5
    assert [allowance.spend() for _ in range(2)] == [True, False]
    now[0] = 100.0
    assert [allowance.spend() for _ in range(3)] == [True, True, False]
