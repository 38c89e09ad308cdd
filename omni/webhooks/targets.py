"""Where outgoing webhooks may go: public https addresses, and never into the network we stand in.

Anybody with an API key may name an address, so a name is resolved anew for each delivery, each of its
addresses must be public, and the connection goes to the address that was looked at: a name that points
elsewhere a moment later changes nothing. Redirects are not followed.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit, urlunsplit

from omni.errors import ConfigError, TransientError

LONGEST = 2_000
NEVER = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("168.63.129.16/32"))
"""Public by their numbers, and yet of the network or the cloud we stand in."""
NAT64 = ipaddress.ip_network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Target:
    """A checked address to send to.

    Attributes:
        url: with the IP in place of the name.
        host: for the `Host` header.
        name: for TLS: what the certificate must be of.
    """

    url: str
    host: str
    name: str


def check(url: str, *, loopback: bool = False) -> SplitResult:
    """An address as somebody gave it, without looking its name up.

    Args:
        url: absolute.
        loopback: this machine may be addressed, also without TLS.

    Raises:
        ConfigError: it is not one to send to.
    """
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise ConfigError("target_url is not a URL; for example https://hooks.example/catch/1") from None
    if len(url) > LONGEST or not url.isascii() or any(c == " " or not c.isprintable() for c in url):
        raise ConfigError(f"target_url must be plain, printable ASCII of at most {LONGEST} characters")
    if not host or parts.username is not None or parts.password is not None or port == 0:
        raise ConfigError("target_url needs a host and no user; for example https://hooks.example/catch/1")
    here = loopback and _is_loopback_name(host)
    if parts.scheme != "https" and not (here and parts.scheme == "http"):
        raise ConfigError("target_url must begin with https://")
    if (literal := _literal(host)) is not None and not (here or is_public(literal)):
        raise ConfigError("target_url is a private address; a public one is needed")
    if not here and (host == "localhost" or host.endswith((".localhost", ".local", ".internal"))):
        raise ConfigError("target_url names a machine of a private network; a public one is needed")
    return parts


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _is_loopback_name(host: str) -> bool:
    literal = _literal(host)
    return host == "localhost" if literal is None else literal.is_loopback


def is_public(address: Address) -> bool:
    """Whether an address is one of the public Internet, also behind the ways of writing one in IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.is_site_local or not all(is_public(one) for one in inner if one is not None):
            return False
        if address.ipv4_mapped is not None:
            return True
    elif any(address in network for network in NEVER):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def resolve(url: str, *, loopback: bool = False) -> Target:
    """Look an address up and pin it.

    Raises:
        ConfigError: it leads to a private network.
        TransientError: the name is not found now.
    """
    parts = check(url, loopback=loopback)
    name = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise TransientError("The target's name is not found; it will be tried again.") from None
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    allowed = [one for one in addresses if is_public(one) or (loopback and one.is_loopback)]
    if not addresses or len(allowed) < len(addresses):
        raise ConfigError("The target's name leads to a private address; nothing was sent.")
    first = allowed[0]
    where = f"[{first}]" if first.version == 6 else str(first)
    return Target(
        urlunsplit((parts.scheme, f"{where}:{port}", parts.path, parts.query, "")), parts.netloc, name
    )
