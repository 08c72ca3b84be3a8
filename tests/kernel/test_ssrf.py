from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from molecule_ai.kernel import ssrf
from molecule_ai.kernel.ssrf import GuardedClient, UrlPolicy, UrlRefused

STRICT = UrlPolicy()
SAAS = UrlPolicy(saas=True)
DEV = UrlPolicy(dev=True)

ALWAYS_REFUSED = [
    "169.254.169.254", "127.0.0.1", "127.255.255.254", "fe80::1", "::1", "192.0.2.1", "198.51.100.7",
    "203.0.113.9", "100.64.0.1", "100.127.255.255", "224.0.0.1", "239.1.1.1", "fc00::1", "2001:db8::1",
    "0.0.0.0", "0.1.2.3", "240.0.0.1", "255.255.255.255", "::", "ff02::1", "fd00:ec2::254",
]  # fmt: skip
PRIVATE = ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fd00::1", "fdff::1"]
PUBLIC = [
    "1.1.1.1",
    "172.32.0.1",
    "11.0.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "169.255.0.1",
    "223.255.255.255",
]


def wrapped(address: str) -> list[str]:
    """Every IPv6 form through which a gateway or the kernel reaches an IPv4 address."""
    number = int(ipaddress.IPv4Address(address))
    forms = [
        ipaddress.IPv6Address((0xFFFF << 32) | number),
        ipaddress.IPv6Address(number),
        ipaddress.IPv6Address((0x64FF9B << 96) | number),
        ipaddress.IPv6Address((0x2002 << 112) | (number << 80)),
        ipaddress.IPv6Address((0x20010000 << 96) | (0x08080808 << 64) | (number ^ 0xFFFFFFFF)),
    ]
    return [str(form) for form in forms if int(form) > 1]


def url_of(address: str) -> str:
    return f"http://[{address}]:8000/" if ":" in address else f"http://{address}:8000/"


async def never(host: str, port: int) -> list[str]:
    raise AssertionError("a literal address is not looked up")


@pytest.mark.parametrize("address", ALWAYS_REFUSED)
@pytest.mark.parametrize("policy", [STRICT, SAAS])
async def test_reserved_addresses_are_refused_in_every_mode(address: str, policy: UrlPolicy) -> None:
    with pytest.raises(UrlRefused):
        await ssrf.check_url(url_of(address), policy, never)


@pytest.mark.parametrize("address", PRIVATE)
async def test_private_addresses_are_open_in_saas_and_dev_only(address: str) -> None:
    with pytest.raises(UrlRefused, match="private"):
        await ssrf.check_url(url_of(address), STRICT, never)
    await ssrf.check_url(url_of(address), SAAS, never)
    await ssrf.check_url(url_of(address), DEV, never)


@pytest.mark.parametrize("address", PUBLIC)
@pytest.mark.parametrize("policy", [STRICT, SAAS, DEV])
async def test_public_addresses_are_open(address: str, policy: UrlPolicy) -> None:
    await ssrf.check_url(url_of(address), policy, never)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_dev_mode_opens_loopback(address: str) -> None:
    await ssrf.check_url(url_of(address), DEV, never)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_the_same_in_every_ipv6_form(address: ipaddress.IPv4Address) -> None:
    for policy in (STRICT, SAAS, DEV):
        for form in wrapped(str(address)):
            inner = ssrf.refusal(address, policy)
            assert ssrf.refusal(ipaddress.ip_address(form), policy) == inner


@given(st.ip_addresses())
def test_what_strict_mode_opens_is_open_in_the_other_modes_too(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if ssrf.refusal(address, STRICT) is None:
        assert not address.is_loopback
        assert not address.is_link_local
        assert not address.is_multicast
        assert ssrf.refusal(address, SAAS) is None
        assert ssrf.refusal(address, DEV) is None


@given(st.text(max_size=60))
def test_any_text_is_a_target_or_a_refusal(text: str) -> None:
    for candidate in (text, f"http://{text}", f"http://{text}:80/"):
        try:
            target = ssrf.parse(candidate, STRICT)
        except UrlRefused:
            continue
        assert target.scheme in ("http", "https")
        assert target.host
        assert target.port


@pytest.mark.parametrize(
    "url",
    [
        "", "x", "ftp://example.com/", "file:///etc/passwd", "http://", "http:///path", "//example.com",
        "http://user@example.com/", "http://user:pw@example.com/", "http://:pw@example.com/",
        "http://example.com:22/", "http://example.com:25/", "http://example.com:2375/", "http://example.com:2376/",
        "http://example.com:5432/", "https://example.com:6379/", "http://example.com:0/", "http://example.com:99999/",
        "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://127.0.0.1./",
        "http://①②⑦.0.0.1/", "http://exa mple.com/", "http://example.com\\@127.0.0.1/", "http://a\tb/", "http://a\x00b/",
        "http://[fe80::1%25eth0]:8000/",
    ],
)  # fmt: skip
def test_a_url_that_hides_its_target_is_refused(url: str) -> None:
    with pytest.raises(UrlRefused):
        ssrf.parse(url, STRICT)


async def test_every_address_behind_a_name_counts() -> None:
    async def mixed(host: str, port: int) -> list[str]:
        return ["1.1.1.1", "127.0.0.1"]

    with pytest.raises(UrlRefused, match="loopback"):
        await ssrf.check_url("http://agent.example.com/", STRICT, mixed)


@pytest.mark.parametrize("answer", [[], OSError("no such host")])
async def test_a_name_that_does_not_resolve_is_refused(answer: list[str] | OSError) -> None:
    async def failing(host: str, port: int) -> list[str]:
        if isinstance(answer, OSError):
            raise answer
        return answer

    with pytest.raises(UrlRefused, match="does not resolve"):
        await ssrf.check_url("http://agent.example.com/", STRICT, failing)


async def test_the_name_localhost_passes_only_where_it_is_allowed() -> None:
    async def loopback(host: str, port: int) -> list[str]:
        return ["127.0.0.1", "::1"]

    await ssrf.check_url("http://localhost:8001", UrlPolicy(allow_localhost_name=True), loopback)
    for url in ("http://localhost:8001", "http://sub.localhost:8001", "http://rebind.example.com:8001"):
        with pytest.raises(UrlRefused):
            await ssrf.check_url(url, STRICT, loopback)
    with pytest.raises(UrlRefused):
        await ssrf.check_url("http://sub.localhost:1", UrlPolicy(allow_localhost_name=True), loopback)


async def test_the_allow_list_opens_what_the_operator_named_and_no_more() -> None:
    policy = UrlPolicy(allow_cidrs=ssrf.parse_cidrs("10.1.0.0/16, 100.64.0.0/10 224.0.0.0/4"))
    await ssrf.check_url("http://10.1.2.3/", policy, never)
    await ssrf.check_url("http://100.64.0.1/", policy, never)
    for url in ("http://10.2.0.1/", "http://224.0.0.1/", "http://10.1.2.3:22/"):
        with pytest.raises(UrlRefused):
            await ssrf.check_url(url, policy, never)
    with pytest.raises(ValueError, match="nonsense"):
        ssrf.parse_cidrs("10.0.0.0/8,nonsense")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="inside")

    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPFound("/")

    app = web.Application()
    app.add_routes([web.get("/", answer), web.get("/away", redirect)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def to_loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


async def status(client: GuardedClient, url: str, trusted: str | None = None) -> int:
    async with client.request("GET", url, trusted=trusted) as response:
        return response.status


async def test_a_name_that_turns_to_loopback_after_the_check_is_not_dialled(port: int) -> None:
    answers = iter([["1.1.1.1"], ["127.0.0.1"]])

    async def rebinding(host: str, port: int) -> list[str]:
        return next(answers)

    url = f"http://agent.example.com:{port}/"
    await ssrf.check_url(url, STRICT, rebinding)
    async with GuardedClient(STRICT, resolve=rebinding) as client:
        with pytest.raises(UrlRefused):
            await status(client, url)


async def test_the_address_that_was_checked_is_the_one_that_is_dialled(port: int) -> None:
    lookups: list[str] = []

    async def counting(host: str, port: int) -> list[str]:
        lookups.append(host)
        return ["127.0.0.1"]

    async with GuardedClient(DEV, resolve=counting) as client:
        assert await status(client, f"http://agent.example.com:{port}/") == 200
    assert lookups == ["agent.example.com"]


async def test_a_literal_address_that_escaped_the_text_check_is_not_dialled(port: int) -> None:
    async with aiohttp.ClientSession(connector=ssrf.guarded_connector(STRICT)) as session:
        with pytest.raises(UrlRefused):
            await session.get(f"http://127.0.0.1:{port}/")


async def test_a_redirect_is_an_answer_and_not_followed(port: int) -> None:
    async with GuardedClient(DEV) as client:
        assert await status(client, f"http://127.0.0.1:{port}/away") == 302


async def test_only_the_origin_that_the_provisioner_set_is_trusted(port: int) -> None:
    async with GuardedClient(STRICT) as client:
        mine = f"http://127.0.0.1:{port}"
        assert await status(client, f"{mine}/", trusted=mine) == 200
        with pytest.raises(UrlRefused):
            await status(client, f"http://127.0.0.1:{port + 1}/", trusted=mine)
        with pytest.raises(UrlRefused):
            await status(client, f"{mine}/")


async def test_localhost_is_dialled_where_it_is_allowed(port: int) -> None:
    async with GuardedClient(UrlPolicy(allow_localhost_name=True), resolve=to_loopback) as client:
        assert await status(client, f"http://localhost:{port}/") == 200
        with pytest.raises(UrlRefused):
            await status(client, f"http://127.0.0.1:{port}/")
        with pytest.raises(UrlRefused):
            await status(client, f"http://other.example.com:{port}/")
