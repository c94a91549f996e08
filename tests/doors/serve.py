"""`trunkline serve` with one more door."""

from __future__ import annotations

import supervisor
from config.schema import Settings
from tests.doors.echo.wiring import EchoSettings


class WithEcho(Settings):
    """Everything, and the line of the door."""

    echo: EchoSettings = EchoSettings()


if __name__ == "__main__":
    supervisor.serve(obj=WithEcho)
