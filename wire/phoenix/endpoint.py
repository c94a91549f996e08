"""Where a portal is asked (protocol sheet TURN 1.8)."""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit, urlunsplit


def websocket_url(api: str, *, name: str, ipv4: str, ipv6: str, port: int) -> str:
    """The URL of the relay's channel.

    Raises:
        ValueError: the API's URL is none of http, https, ws and wss, or has no host.
    """
    parts = urlsplit(api)
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise ValueError(f"{api!r}: must be http(s)://host or ws(s)://host")
    query = {"name": name, "ipv4": ipv4, "ipv6": ipv6, "port": str(port)}
    asked = urlencode({key: value for key, value in query.items() if value})
    path = parts.path.rstrip("/") + "/relay/websocket"
    return urlunsplit((scheme, parts.netloc, path, asked, ""))
