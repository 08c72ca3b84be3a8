"""The guard on every URL that somebody else chose (contract 02 §11.6).

It works at three moments, because each sees what the others cannot. `parse` judges the text: scheme,
credentials, port, literal addresses. The resolver judges every address behind a name, in the one lookup
that is made. The connector judges the address that is about to be dialled. Redirects are never followed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import lru_cache, partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from msgspec import Struct
from yarl import URL

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[list[str]]]


def _networks(*cidrs: str) -> tuple[IPNetwork, ...]:
    return tuple(ipaddress.ip_network(cidr) for cidr in cidrs)


# No agent can be there, so that not even the allow-list opens them.
NOWHERE = _networks("0.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "::/128", "ff00::/8")
LOOPBACK = _networks("127.0.0.0/8", "::1/128")
# The instance metadata address of a large cloud lies inside fd00::/8, which SaaS mode opens.
RESERVED = _networks(
    "169.254.0.0/16", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "100.64.0.0/10", "240.0.0.0/4",
    "fe80::/10", "fc00::/8", "2001:db8::/32", "fd00:ec2::/32",
)  # fmt: skip
PRIVATE = _networks("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8")

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")

# ssh, mail, container engines, PostgreSQL, Redis: services that a POST body can be made to talk to.
REFUSED_PORTS = frozenset({22, 25, 2375, 2376, 5432, 6379})

# What a resolver may take for an address in one of its historical spellings: 0x7f.1, 2130706433, 127.1.
NUMERIC_HOST = re.compile(r"(?:.*\.)?(?:0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)
FORBIDDEN_CHARACTER = re.compile(r"[\x00-\x20\x7f\\]")


class UrlRefused(ValueError):
    """A URL that this installation does not call; the text says why and is safe to show."""


class UrlPolicy(Struct, frozen=True, kw_only=True):
    """Which ranges are open here."""

    saas: bool = False
    """Agents live in the private network of their own cloud account."""
    dev: bool = False
    """Loopback and private ranges are open (`MOLECULE_ENV` development)."""
    allow_localhost_name: bool = False
    """The literal name `localhost`, outside SaaS and production."""
    allow_cidrs: tuple[IPNetwork, ...] = ()
    """Legitimate private networks that the operator named."""


class Target(Struct, frozen=True):
    """The parts of a URL that decide where a connection goes."""

    scheme: str
    host: str
    port: int


def parse_cidrs(text: str) -> tuple[IPNetwork, ...]:
    """Read a list of networks divided by commas or blanks; raises `ValueError` naming the bad one."""
    return tuple(ipaddress.ip_network(item) for item in re.split(r"[,\s]+", text.strip()) if item)


def parse(url: str, policy: UrlPolicy) -> Target:
    """Judge the text of a URL without asking the network."""
    target = _target(url)
    if target.port in REFUSED_PORTS:
        raise UrlRefused(f"port {target.port} is refused")
    if (address := _literal(target.host)) is not None:
        _require_open(address, policy)
    return target


def refusal(address: IPAddress, policy: UrlPolicy) -> str | None:
    """Say why an address is refused, or `None` when it is open."""
    if isinstance(address, ipaddress.IPv6Address) and (embedded := _embedded(address)):
        return next((reason for inner in embedded if (reason := refusal(inner, policy))), None)
    if _within(address, NOWHERE):
        return "no agent can live at this address"
    if _within(address, policy.allow_cidrs):
        return None
    if _within(address, LOOPBACK):
        return None if policy.dev else "the address is a loopback address"
    if _within(address, RESERVED) or address in LOCAL_NAT64:
        return "the address is in a reserved range"
    if _within(address, PRIVATE) and not (policy.saas or policy.dev):
        return "the address is in a private range"
    return None


async def resolve(host: str, port: int) -> list[str]:
    """Look a name up once, with the resolver of the system."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


async def check_url(url: str, policy: UrlPolicy, resolve: Resolve = resolve) -> None:
    """Judge a URL before it is stored; raises `UrlRefused`."""
    target = parse(url, policy)
    if _literal(target.host) is None:
        await _open_addresses(target.host, target.port, policy, resolve)


def is_same_origin(url: str, other: str) -> bool:
    """Whether two URLs lead to the same scheme, host and port."""
    try:
        return _target(url) == _target(other)
    except UrlRefused:
        return False


class GuardedClient:
    """HTTP to URLs that agents chose. Use it as an asynchronous context manager.

    A URL that our own provisioner assigned is called without the guard when the caller passes it as
    `trusted`; such calls share no connection with the others.
    """

    def __init__(
        self,
        policy: UrlPolicy,
        *,
        timeout: aiohttp.ClientTimeout | None = None,
        connections: int = 1_000,
        resolve: Resolve = resolve,
    ) -> None:
        self._policy = policy
        self._timeout = timeout or aiohttp.ClientTimeout(total=60, sock_connect=10)
        self._connections = connections
        self._resolve = resolve
        self._guarded: aiohttp.ClientSession | None = None
        self._direct: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> GuardedClient:
        self._guarded = self._session(guarded_connector(self._policy, self._connections, self._resolve))
        self._direct = self._session(aiohttp.TCPConnector(limit=self._connections))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        for session in (self._guarded, self._direct):
            if session is not None:
                await session.close()
        self._guarded = self._direct = None

    def request(
        self, method: str, url: str, *, trusted: str | None = None, **options: Any
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Send one request; raises `UrlRefused` here or when the connection is made.

        A redirect comes back as the response that it is.
        """
        options["allow_redirects"] = False
        if self._guarded is None or self._direct is None:
            raise RuntimeError("the client is not open")
        if trusted is not None and is_same_origin(url, trusted):
            return self._direct.request(method, url, **options)
        parse(url, self._policy)
        return self._guarded.request(method, url, **options)

    def _session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),  # what one agent sets is none of another's business
            trust_env=False,
        )


def guarded_connector(
    policy: UrlPolicy, connections: int = 1_000, resolve: Resolve = resolve
) -> aiohttp.TCPConnector:
    """Make a connector that dials checked addresses only, each name looked up once."""
    return aiohttp.TCPConnector(
        limit=connections,
        resolver=_CheckedResolver(policy, resolve),
        ttl_dns_cache=10,
        socket_factory=partial(_checked_socket, policy),
    )


class _CheckedResolver(AbstractResolver):
    def __init__(self, policy: UrlPolicy, resolve: Resolve) -> None:
        self._policy = policy
        self._resolve = resolve

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        addresses = await _open_addresses(host, port, self._policy, self._resolve)
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        return None


def _checked_socket(policy: UrlPolicy, info: tuple[Any, ...]) -> socket.socket:
    family, kind, proto, _, sockaddr = info
    address = _address(sockaddr[0])
    # A literal loopback address was refused by the text already: this one can only be `localhost`.
    is_localhost = policy.allow_localhost_name and _within(address, LOOPBACK)
    if not is_localhost:
        _require_open(address, policy)
    return socket.socket(family=family, type=kind, proto=proto)


async def _open_addresses(host: str, port: int, policy: UrlPolicy, resolve: Resolve) -> list[IPAddress]:
    """Look a name up and require that every address behind it is open."""
    try:
        addresses = [_address(text) for text in await resolve(host, port)]
    except (OSError, UnicodeError) as error:
        raise UrlRefused("the host name does not resolve") from error
    if not addresses:
        raise UrlRefused("the host name does not resolve")
    if not (host.lower() == "localhost" and policy.allow_localhost_name):
        for address in addresses:
            _require_open(address, policy)
    return addresses


def _require_open(address: IPAddress, policy: UrlPolicy) -> None:
    if reason := refusal(address, policy):
        raise UrlRefused(reason)


@lru_cache(maxsize=8192)
def _target(url: str) -> Target:
    """Split a URL with the parser of the client that will dial it, so that both see one host."""
    if FORBIDDEN_CHARACTER.search(url):
        raise UrlRefused("the URL contains characters that no URL has")
    try:
        parsed = URL(url)
        host, port = parsed.raw_host, parsed.port
    except (ValueError, UnicodeError) as error:
        raise UrlRefused("the URL cannot be parsed") from error
    if parsed.scheme not in ("http", "https"):
        raise UrlRefused("only http and https URLs are called")
    if not host or not port:
        raise UrlRefused("the URL has no host or no usable port")
    if parsed.raw_user is not None or parsed.raw_password is not None:
        raise UrlRefused("the URL carries credentials")
    return Target(parsed.scheme, host, port)


def _literal(host: str) -> IPAddress | None:
    bare = host.removesuffix(".")
    try:
        return _address(bare)
    except ValueError:
        if NUMERIC_HOST.fullmatch(bare):
            raise UrlRefused("the host is an address in a form that is not canonical") from None
        return None


def _address(text: str) -> IPAddress:
    return ipaddress.ip_address(text.partition("%")[0])


def _within(address: IPAddress, networks: tuple[IPNetwork, ...]) -> bool:
    return any(address in network for network in networks)


def _embedded(address: ipaddress.IPv6Address) -> tuple[ipaddress.IPv4Address, ...]:
    """The IPv4 addresses that a gateway or the kernel would really contact."""
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    is_compatible = address in IPV4_COMPATIBLE and int(address) > 1  # `::` and `::1` are themselves
    if address in NAT64 or is_compatible:
        return (ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF),)
    return ()
