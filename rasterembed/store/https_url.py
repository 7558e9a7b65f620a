"""Addresses that begin with https://, and the hosts that may be read.

An address is written into manifests and catalogues. It therefore has one form only, and no part that could hold a
secret: no name or password of a user, no query and no fragment.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import quote, urljoin, urlsplit

from rasterembed.errors import StoreError, UsageError

SCHEME = "https://"

_PORT = 443
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_IN_PATHS = "/%:@!$&'()*+,;=~-._"
"""Characters of a path that stay as they are. Every other character is percent-encoded."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_https(uri: str) -> bool:
    """Return whether an address begins with https://, in any case."""
    return uri[: len(SCHEME)].lower() == SCHEME


def canonical_host(text: str) -> str:
    """Return a host, with its port unless it is 443, in the one form in which hosts are compared.

    Args:
        text: a name or an IP address, such as `data.example.org`, `stac.internal:8443` or `[::1]:8443`.

    Raises:
        ValueError: if it is no host. A pattern such as `*.example.org` is no host.

    Example:
        >>> canonical_host("Data.Example.org:443")
        'data.example.org'
    """
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.path or parts.query or parts.fragment or "@" in parts.netloc or text.endswith(":"):
        raise ValueError(f"{text[:100]!r} is no host: give a name such as data.example.org or data.example.org:8443")
    return _joined(_canonical_name(host), port)


def canonical_url(text: str, what: str = "address") -> str:
    """Return an https:// address in its one form: lower-case scheme and host, no port 443, percent-encoded path.

    Args:
        text: the address.
        what: word for the address in errors.

    Raises:
        UsageError: if it is no https:// address, or has a user, a password, a query or a fragment. The text shows none
            of these parts.

    Example:
        >>> canonical_url("HTTPS://Data.Example.org:443/a b.tif")
        'https://data.example.org/a%20b.tif'
    """
    shown = shown_url(text)
    try:
        parts = urlsplit(text)
        name, port = parts.hostname, parts.port
        if not is_https(text) or not name:
            raise ValueError
        host = _joined(_canonical_name(name), port)
        path = quote(parts.path, safe=_IN_PATHS)  # It refuses lone surrogates, which JSON can hold.
    except ValueError:
        raise UsageError(f"{what} {shown!r} is no https:// address of a file") from None
    if "@" in parts.netloc:
        raise UsageError(f"{what} {shown!r} holds a user or a password, which manifests would show: leave it out")
    if "?" in text or "#" in text:
        raise UsageError(
            f"{what} {shown!r} has a query or a fragment. A query can hold a secret, which would be written into "
            "manifests: give an address without, or read the file from S3"
        )
    return f"{SCHEME}{host}{path}"


def shown_url(url: str) -> str:
    """Return a URL as errors show it: without user, password, query and fragment, which may hold secrets."""
    plain = re.split(r"[?#]", url, maxsplit=1)[0]
    scheme, mark, rest = plain.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"[:300] if mark else plain[:300]


def host_of(url: str) -> tuple[str, int]:
    """Return the name and the port of a canonical https:// address."""
    parts = urlsplit(url)
    assert parts.hostname is not None  # `checked_url` refuses an address without a host.
    return parts.hostname, parts.port or _PORT


def checked_url(url: str, hosts: tuple[str, ...]) -> str:
    """Return a URL that may be requested. It may have a query, as the target of a redirect has.

    Args:
        url: any text, such as an address in a document or the target of a redirect.
        hosts: hosts that may be read, as `canonical_host` returns them.

    Raises:
        StoreError: if it is no https:// address, has a user or a password, or names another host. The text shows no
            query.
    """
    shown = shown_url(url)
    try:
        parts = urlsplit(url)
        if not is_https(url) or not parts.hostname:
            raise StoreError(f"{shown}: only addresses that begin with https:// are read from web servers")
        host = _joined(_canonical_name(parts.hostname), parts.port)
        # `quote` refuses lone surrogates, which JSON can hold.
        path = quote(parts.path, safe=_IN_PATHS) or "/"
        query = f"?{quote(parts.query, safe=_IN_PATHS + '?')}" if parts.query else ""
    except ValueError:
        raise StoreError(f"{shown}: this is no https:// address") from None
    if "@" in parts.netloc:
        raise StoreError(f"{shown}: the address holds a user or a password, which is not sent")
    if host not in hosts:
        raise StoreError(
            f"{shown}: the host {host} is not one of those that may be read: if you trust it, add it to "
            "`source_store.https_hosts`"
        )
    return f"{SCHEME}{host}{path}{query}"


def joined_url(base: str, href: str) -> str:
    """Return the address that a link in a document or a redirect means. A relative link begins at `base`.

    Raises:
        StoreError: if the link cannot be read as an address.
    """
    try:
        return urljoin(base, href)
    except ValueError:
        raise StoreError(f"{shown_url(base)}: it has a link that is not an address") from None


def resolve_host(host: str, port: int, *, private: bool) -> list[str]:
    """Return the IP addresses of a host, all of which may be connected to.

    Connect to one of these addresses, and do not look the name up again: the second answer could be another one.

    Args:
        host: name or IP address of the host.
        port: port of the server.
        private: True if private and loopback addresses are allowed too.

    Raises:
        StoreError: if the name cannot be resolved, or if one of its addresses is not allowed.
        OSError: if the name server does not answer.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise StoreError(f"{host}: this is no name of a host") from None
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            raise StoreError(f"{host}: the name could not be resolved: check the address, and the network") from error
        raise
    addresses = [str(address[0]) for *_, address in found]
    for address in addresses:
        reason = why_not_allowed(ipaddress.ip_address(address.partition("%")[0]), private=private)
        if reason is not None:
            raise StoreError(f"{host}: its address {address} {reason}")
    return addresses


def why_not_allowed(address: IpAddress, *, private: bool) -> str | None:
    """Return why no connection to an IP address is made, or None if the address is allowed.

    Link-local addresses are never allowed. At 169.254.169.254, clouds give credentials to whoever asks.

    Args:
        address: the address. An IPv4 address inside an IPv6 address is judged too.
        private: True if private and loopback addresses are allowed.

    Example:
        >>> why_not_allowed(ipaddress.ip_address("169.254.169.254"), private=True)
        'is link-local, multicast or reserved: such addresses are never read'
        >>> why_not_allowed(ipaddress.ip_address("203.1.2.3"), private=False) is None
        True
    """
    for each in _judged(address):
        # Python counts the IPv6 loopback address ::1 as reserved too.
        if not each.is_loopback and (
            each.is_link_local or each.is_multicast or each.is_reserved or each.is_unspecified
        ):
            return "is link-local, multicast or reserved: such addresses are never read"
        if not private and not each.is_global:
            return "is not public: if the server is in your own network, set `source_store.https_private`"
    return None


def _judged(address: IpAddress) -> tuple[IpAddress, ...]:
    """Return the addresses that decide about an address.

    An IPv4-mapped address and a NAT64 address lead to the IPv4 address inside. For 6to4 and Teredo, both addresses
    decide, because either may be reached.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address in _NAT64:
        return (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF),)
    return (address, *(each for each in (address.sixtofour, *(address.teredo or ())) if each is not None))


def _canonical_name(host: str) -> str:
    """Return the name of a host in lower case and ASCII. Raise ValueError if it is no name and no IP address."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    name = host.rstrip(".").lower()
    if not name.isascii():
        name = name.encode("idna").decode()
    labels = name.split(".")
    if not all(map(_LABEL.fullmatch, labels)) or len(name) > 253:
        raise ValueError(f"{host[:100]!r} is no host: give a whole name such as data.example.org, without patterns")
    if labels[-1].isdigit() or labels[-1].startswith("0x"):
        # The resolver would read 127.1 or 0x7f000001 as an IPv4 address.
        raise ValueError(f"{host[:100]!r} is no host: write an IP address in full")
    return name


def _joined(host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return shown if port in (None, _PORT) else f"{shown}:{port}"
