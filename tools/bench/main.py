"""`trunkline bench`: measurements, each beside something to compare with, in one run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from typing import Any

import click
import orjson

from tools.bench import quic_conditions
from tools.bench.quic_daemon import measure as measure_quic
from tools.bench.quic_engine import measure as measure_engines
from tools.bench.runtime import Row, measure


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Measure the runtime and the relay. Figures hold for this machine and this moment."""


@cli.command()
@click.option("--actors", default=100_000, show_default=True, help="Live actors at the most.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def runtime(actors: int, as_json: bool) -> None:
    """The actor runtime beside bare asyncio and pykka."""
    _show(asyncio.run(measure(actors)), as_json=as_json)


@cli.command()
@click.option("--seconds", default=3.0, show_default=True, help="Length of one measurement.")
@click.option("--repeat", default=3, show_default=True, help="Measurements; the median counts.")
@click.option("--kill-allocation", is_flag=True, help="Measure the gap when one is killed.")
@click.option("--kills", default=100, show_default=True, help="How often, with --kill-allocation.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def forward(seconds: float, repeat: int, kill_allocation: bool, kills: int, as_json: bool) -> None:
    """The UDP forward plane beside an asyncio DatagramProtocol, in one run."""
    from tools.bench.forward import measure_kills, measure_throughput

    rows = measure_kills(kills) if kill_allocation else measure_throughput(seconds, repeat)
    _show(rows, as_json=as_json)


@cli.command()
@click.option("--rate", default=20_000.0, show_default=True, help="Packets per second.")
@click.option("--seconds", default=3.0, show_default=True, help="Length of one measurement.")
@click.option("--repeat", default=3, show_default=True, help="Measurements; the median counts.")
@click.option("--allocations", default=1000, show_default=True, help="Idle allocations.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def turn(rate: float, seconds: float, repeat: int, allocations: int, as_json: bool) -> None:
    """The TURN door beside an asyncio DatagramProtocol and, where installed, coturn, in one run."""
    from tools.bench.turn import measure

    rows = measure(rate=rate, seconds=seconds, repeat=repeat, allocations=allocations)
    _show(rows, as_json=as_json)


@cli.command()
@click.option("--mib", default=512, show_default=True, help="Of one bulk transfer.")
@click.option("--count", default=4000, show_default=True, help="Round trips; a quarter connects.")
@click.option("--idle", default=500, show_default=True, help="Idle users and members.")
@click.option("--beside", default="", help="Command of another such relay, with {port}.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def rendezvous(mib: int, count: int, idle: int, beside: str, as_json: bool) -> None:
    """The rendezvous door, by protocol, beside a plain asyncio relay, in one run."""
    from tools.bench.rendezvous import measure

    _show(measure(mib=mib, count=count, idle=idle, beside=beside), as_json=as_json)


def _show(rows: list[Row], *, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
        return
    for row in rows:
        click.echo(f"{row['what']:<62} {row['value']:>12.3f} {row['unit']}")


@cli.command()
@click.option("--mib", default=64, show_default=True, help="Per native round; aioquic a quarter.")
@click.option("--rounds", default=3, show_default=True, help="Rounds; the cheapest counts.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def engine(mib: int, rounds: int, as_json: bool) -> None:
    """One hop through each QUIC engine, in memory: CPU seconds per GiB."""
    rows = [asdict(row) for row in measure_engines(mib, rounds)]
    if as_json:
        click.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
        return
    click.echo(
        f"{'engine':<8} {'datagram':>8} {'streams':>7} {'cpu s/GiB':>10} {'us/datagram':>11}"
    )
    for row in rows:
        click.echo(
            f"{row['engine']:<8} {row['datagram']:>8} {row['streams']:>7} "
            f"{row['cpu_s_per_gib']:>10.2f} {row['us_per_datagram']:>11.2f}"
        )


@cli.command()
@click.option("--seconds", default=3600.0, show_default=True, help="Length of the run.")
@click.option("--engine", default="native", show_default=True, help="Of the daemon.")
@click.option("--streams", default=20, show_default=True, help="At a time.")
@click.option("--seed", default=1, show_default=True, help="Of sizes, contents and the network.")
@click.option("--lost", default=0.01, show_default=True, help="Share of datagrams.")
@click.option("--late", default=0.01, show_default=True, help="Share that others overtake.")
@click.option("--pause", default=0.5, show_default=True, help="Seconds between two transfers.")
@click.option("--shrink-after", default=0.0, help="Seconds; then the path takes 1280 bytes only.")
@click.option(
    "--client",
    type=click.Choice(["id", "bare"]),
    default="bare",
    show_default=True,
    help="With a connection id, or without one like the clients of quic-go.",
)
def soak(
    seconds: float,
    engine: str,
    streams: int,
    seed: int,
    lost: float,
    late: float,
    pause: float,
    shrink_after: float,
    client: str,
) -> None:
    """Byte-verified streams over a network that loses and reorders; ends with a verdict."""
    import sys

    from actors.node.logging import install
    from tools.bench.lossy_proxy import Weather
    from tools.bench.soak import soak as rows

    install("ERROR", "human")

    async def main() -> bool:
        weather = Weather(lost=lost, late=late)
        row: dict[str, object] = {}
        async for row in rows(
            seconds,
            engine=engine,
            streams=streams,
            seed=seed,
            weather=weather,
            pause=pause,
            shrink_after=shrink_after,
            without_id=client == "bare",
        ):
            click.echo(orjson.dumps(row).decode())
        return row.get("verdict") == "held"

    sys.exit(0 if asyncio.run(main()) else 1)


_ENGINES = click.option(
    "--engines", default="native,aioquic", show_default=True, help="Of the daemon."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


@cli.command()
@_ENGINES
@click.option("--agents", default=5000, show_default=True)
@click.option("--services", default=1, show_default=True, help="Of each agent.")
@click.option("--seconds", default=10.0, show_default=True, help="Of the idleness looked at.")
@click.option("--relays", default=0, help="So many, each with --agents, of one controller.")
@_JSON
def idle(
    engines: str, agents: int, services: int, seconds: float, relays: int, as_json: bool
) -> None:
    """Idle, registered agents: memory of the daemon, its CPU share, write transactions."""
    chosen = engines.split(",")
    rows = quic_conditions.idle(chosen, agents, services=services, seconds=seconds)
    if relays:
        rows = quic_conditions.idle_cluster(
            chosen, relays, agents, services=services, seconds=seconds
        )
    _show_rows(rows, as_json=as_json)


@cli.command()
@_ENGINES
@click.option("--agents", default=1000, show_default=True)
@_JSON
def storm(engines: str, agents: int, as_json: bool) -> None:
    """The daemon is killed and begins again: all agents come back at once."""
    _show_rows(quic_conditions.storm(engines.split(","), agents), as_json=as_json)


@cli.command()
@_ENGINES
@click.option("--streams", default=16, show_default=True, help="Beside the flood.")
@click.option("--seconds", default=10.0, show_default=True, help="Length of one measurement.")
@_JSON
def flood(engines: str, streams: int, seconds: float, as_json: bool) -> None:
    """Transfers beside a flood of Initials, and beside one that goes elsewhere."""
    _show_rows(quic_conditions.flood(engines.split(","), streams, seconds), as_json=as_json)


@cli.command()
@_ENGINES
@click.option("--streams", default=50, show_default=True, help="Active beside the stalled one.")
@click.option("--seconds", default=60.0, show_default=True, help="Of the stall.")
@_JSON
def stall(engines: str, streams: int, seconds: float, as_json: bool) -> None:
    """A reader that stops: what the daemon holds, what the other streams keep."""
    _show_rows(quic_conditions.stall(engines.split(","), streams, seconds), as_json=as_json)


def _show_rows(rows: Iterator[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps(list(rows), option=orjson.OPT_INDENT_2).decode())
        return
    for row in rows:
        click.echo(f"{row.pop('engine'):<8} {row.pop('what')}")
        for name, value in row.items():
            click.echo(f"    {name:<24} {value:>12.3f}")


@cli.command()
@_ENGINES
@click.option(
    "--clients",
    default="id,bare",
    show_default=True,
    help="With a connection id, and without one like the clients of quic-go.",
)
@click.option("--streams", default="1,16,100", show_default=True, help="At a time.")
@click.option("--directions", default="upload,download,both", show_default=True)
@click.option("--mib", default=512, show_default=True, help="Per case; aioquic an eighth.")
@click.option("--rounds", default=3, show_default=True, help="Of all cases; the median counts.")
@click.option("--idle", default=5000, show_default=True, help="Idle agents; 0: no such row.")
@click.option("--set", "extra", multiple=True, metavar="KEY=VALUE", help="Settings of the daemon.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def quic(
    engines: str,
    clients: str,
    streams: str,
    directions: str,
    mib: int,
    rounds: int,
    idle: int,
    extra: tuple[str, ...],
    as_json: bool,
) -> None:
    """Throughput and CPU of the real daemon between two agents, over loopback."""
    settings = [word for assignment in extra for word in ("--set", assignment)]
    rows = chain(
        measure_quic(
            engines.split(","),
            clients.split(","),
            [int(count) for count in streams.split(",")],
            directions.split(","),
            mib,
            settings,
            rounds=rounds,
        ),
        quic_conditions.idle(engines.split(",") if idle else [], idle),
    )
    if as_json:
        click.echo(orjson.dumps(list(rows), option=orjson.OPT_INDENT_2).decode())
        return
    for row in rows:
        if "what" in row:
            figures = "  ".join(f"{k} {v:.3f}" for k, v in row.items() if isinstance(v, float))
            client = row.get("client", "")
            click.echo(f"{row['engine']:<8} {client:<5} {row['what']:<20} {figures}")
        else:
            click.echo(
                f"{row['engine']:<8} {row['client']:<5} {row['streams']:>4} {row['direction']:<9}"
                f"{row['gbit_s']:>8.3f} Gbit/s"
                f" ({row['gbit_s_low']:.3f} to {row['gbit_s_high']:.3f})"
                f"{row['daemon_cpu_s_per_gib']:>8.2f} cpu s/GiB"
                f"{row['p50_ms']:>10.1f} p50 ms {row['p99_ms']:>10.1f} p99 ms"
                f"{'  (bound by the load)' if row['load_bound'] else ''}"
            )
