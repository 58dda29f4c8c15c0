"""How is a broker named, and by which files is it trusted?

Of both programs' configuration; and how both send to it.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from edge_agent.contract.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import ssl

PORTS = {"mqtt": 1883, "mqtts": 8883}


class BrokerAddress(NamedTuple):
    """Where the broker listens."""

    host: str
    port: int
    tls: bool


class TlsFiles(NamedTuple):
    """Paths; an empty `ca_file` means the system's certificates, an empty `cert_file` no certificate of our own."""

    ca_file: str
    cert_file: str
    key_file: str


NO_FILES = TlsFiles("", "", "")


def broker_url(host: str, port: int, *, tls: bool) -> str:
    """What `parse_broker` takes apart.

    >>> broker_url("::1", 8883, tls=True)
    'mqtts://[::1]:8883'
    """
    return f"{'mqtts' if tls else 'mqtt'}://{bracketed(host)}:{port}"


def bracketed(host: str) -> str:
    """A host as a URL has it: an IPv6 address in brackets.

    >>> bracketed("::1"), bracketed("broker.lan")
    ('[::1]', 'broker.lan')
    """
    return f"[{host}]" if ":" in host else host


def parse_broker(url: str, *, key: str = "broker") -> BrokerAddress:
    """Take `mqtt://host:port` or `mqtts://host:port` apart; ConfigError, which names `key`, when it is neither.

    >>> parse_broker("mqtts://broker.example")
    BrokerAddress(host='broker.example', port=8883, tls=True)
    """
    if "@" in url:  # before anything that quotes it
        raise ConfigError(f"{key}: the address holds a user or a password: set `username` and `password_file`")
    expected = f"{key}: got {url!r}, expected mqtt://host:port or mqtts://host:port"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{expected}: {error}") from error
    if parts.scheme not in PORTS:
        raise ConfigError(f"{expected}{did_you_mean(parts.scheme, PORTS)}")
    if not parts.hostname or port == 0 or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError(expected)
    return BrokerAddress(parts.hostname, port or PORTS[parts.scheme], parts.scheme == "mqtts")


def in_the_clear(host: str, *, tls: bool, password: str) -> str:
    """What is wrong with sending that password there, in words; empty: nothing.

    >>> in_the_clear("127.0.0.1", tls=False, password="x"), in_the_clear("broker.lan", tls=True, password="x")
    ('', '')
    """
    if tls or not password or _is_this_machine(host):
        return ""
    return f"the password for {host} goes over the network in the clear, and so does all else: use mqtts://"


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """A context that checks the broker's name and certificate; ConfigError when a file cannot be used."""
    import ssl  # megabytes, that whoever has no TLS does without

    try:
        context = ssl.create_default_context(cafile=files.ca_file or None)
        if files.cert_file:
            context.load_cert_chain(files.cert_file, files.key_file or None)
    except (OSError, ssl.SSLError) as error:
        named = ", ".join(path for path in files if path)
        raise ConfigError(f"tls: {error}: expected PEM certificates and their key in {named}") from error
    return context


def send_at_once(_client: object, _data: object, wire: Any) -> None:
    """For paho's `on_socket_open`: a small packet, as a receipt, does not wait for the word on the one before."""
    import socket

    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
