"""What a service may be called: printable text of 1 to 255 bytes in UTF-8.

It becomes a registry key, a log field, a label of metrics and part of the service id; spaces,
slashes and any script are fine.

The limits are ours (`limits`).
"""

from __future__ import annotations

from wire.orp.limits import MAX_SERVICE_NAME_BYTES


def service_name_fault(name: str) -> str:
    """Why this is no name for a service; empty when it is one."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "it is not text in UTF-8"
    if not size:
        return "it is empty"
    if size > MAX_SERVICE_NAME_BYTES:
        return f"it has {size} bytes, at most {MAX_SERVICE_NAME_BYTES}"
    if not name.isprintable():
        return "it has characters that cannot be printed"
    return ""
