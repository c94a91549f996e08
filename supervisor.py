"""The daemon: from settings to a supervision tree, and from signals to an exit code.

It reads the settings, has the specs of the tree built (control and the doors by `actors.wiring`,
node and ops here), runs it, and turns signals into drain, stop and reload. No protocol code, no
branch per door. Nothing heavy is imported at module level: every child process imports this again.

Exit codes: 0 stopped as asked; 2 settings or command line; 70 the tree gave up (escalation reached
the root); 71 a resource was refused (address in use, no certificate); 75 the drain deadline passed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from actors.doors.door import DoorKind
    from actors.node.daemon import ReloadOutcome
    from actors.node.demo import DemoPlan
    from actors.pki.dev_pki import DevPki
    from actors.runtime import ActorSystem, ChildSpec, Supervisor
    from actors.transport.tls import TlsIdentity
    from actors.wiring.cluster import Cluster
    from actors.wiring.composition import Composition
    from config.schema import Settings
    from wire.admin.arguments import Arguments
    from wire.admin.messages import Row

EXIT_OK = 0
#: Names the settings file when no --config is given.
FILE = "TRUNKLINE_CONFIG"
EXIT_SETTINGS = 2
EXIT_RESOURCE = 71


def _flags(options: dict[str, object]) -> dict[str, object]:
    """Command-line options as dotted setting keys; options not given stay out."""
    names = {
        "listen": "edge.listen",
        "listen_tcp": "edge.listen_tcp",
        "listen_rendezvous": "rendezvous.listen",
        "listen_turn": "turn.listen",
        "listen_peer": "peer.listen",
        "debug_listen": "metrics.listen",
        "metrics_dump": "metrics.dump",
        "metrics_interval": "metrics.interval_seconds",
        "access_log": "log.access_file",
        "listen_forward": "edge.forward.listen",
        "advertise_forward": "edge.forward.advertise",
        "relay_id": "node.id",
        "region": "node.region",
        "advertise": "edge.advertise",
        "cert": "node.tls.certificate",
        "key": "node.tls.key",
        "ca": "node.tls.ca",
        "tls_key_log": "node.tls.key_log",
        "policy": "control.policy.files",
        "controller": "control.address",
        "state_directory": "node.state_directory",
        "control_socket": "node.control_socket",
        "log_level": "log.level",
        "log_format": "log.format",
    }
    flags: dict[str, object] = {
        key: options[name] for name, key in names.items() if options.get(name) not in (None, ())
    }
    if options.get("controller"):
        flags["control.backend"] = "grpc"
    if options.get("no_policy"):
        flags["control.policy.enforce"] = False
    if options.get("demo"):
        flags["demo.enabled"] = True
        flags["demo.cluster"] = options["demo"] == "cluster"
    for assignment in options.get("set", ()):  # type: ignore[attr-defined]  # click's tuple
        key, equals, value = str(assignment).partition("=")
        if not equals:
            raise click.UsageError(f"--set needs KEY=VALUE, not {assignment!r}")
        flags[key.strip()] = value
    return flags


@click.command("serve", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=click.Path(path_type=Path), help="TOML settings file.")
@click.option("--check", is_flag=True, help="Check the settings and end.")
@click.option(
    "--demo",
    is_flag=False,
    flag_value="single",
    type=click.Choice(["single", "cluster"]),
    help="Run the built-in demo with development certificates; cluster: with two relays.",
)
@click.option("--listen", multiple=True, metavar="HOST:PORT", help="UDP address for QUIC.")
@click.option("--listen-tcp", multiple=True, metavar="HOST:PORT", help="TCP address for agents.")
@click.option(
    "--listen-rendezvous", multiple=True, metavar="HOST:PORT", help="TCP address for services."
)
@click.option("--listen-turn", multiple=True, metavar="HOST:PORT", help="UDP address for TURN.")
@click.option("--listen-peer", multiple=True, metavar="HOST:PORT", help="Address for peers.")
@click.option("--advertise", metavar="HOST:PORT", help="Address other relays reach this one at.")
@click.option("--listen-forward", metavar="IP:PORT", help="UDP address of the forward plane.")
@click.option("--advertise-forward", metavar="IP:PORT", help="Address agents send forward data to.")
@click.option("--relay-id", help="Name of this relay.")
@click.option("--region", help="Region of this relay.")
@click.option("--cert", metavar="PEM", help="Certificate chain of this relay.")
@click.option("--key", metavar="PEM", help="Private key of this relay.")
@click.option("--ca", metavar="PEM", help="CA that agents must chain to.")
@click.option("--tls-key-log", metavar="FILE", help="Write TLS secrets here, for debugging.")
@click.option("--controller", metavar="HOST:PORT", help="Use this controller, over gRPC.")
@click.option("--policy", multiple=True, metavar="TOML", help="Policy rule file.")
@click.option("--no-policy", is_flag=True, help="Allow every stream. For closed labs only.")
@click.option("--state-directory", metavar="DIR", help="Where state is kept.")
@click.option("--control-socket", metavar="PATH", help="Unix socket for ctl, inspect and chaos.")
@click.option("--debug-listen", metavar="HOST:PORT", help="HTTP address for metrics and health.")
@click.option("--metrics-dump", metavar="FILE", help="Append metrics to this file as JSON lines.")
@click.option("--metrics-interval", metavar="SECONDS", help="Between two of those lines.")
@click.option("--access-log", metavar="FILE", help="One JSON line per stream.")
@click.option("--log-level", metavar="LEVEL", help="TRACE ... CRITICAL.")
@click.option("--log-format", metavar="FORMAT", help="human or json.")
@click.option("--set", multiple=True, metavar="KEY=VALUE", help="Any setting by its dotted key.")
@click.pass_context
def serve(context: click.Context, /, config: Path | None, check: bool, **options: object) -> None:
    """Run the relay daemon until it is told to stop.

    Settings come from the TOML file, then TRUNKLINE_* variables, then these flags; later wins.
    """
    # `context.obj`: another schema, for a daemon with further doors.
    sys.exit(_serve(config, check=check, options=options, schema=context.obj))


def _serve(
    path: Path | None,
    *,
    check: bool,
    options: dict[str, object],
    schema: type[Settings] | None = None,
) -> int:
    from actors.node.early_words import json_wanted, say
    from config.errors import ConfigError
    from config.load import load
    from config.schema import Settings

    flags = _flags(options)
    flagged = [f"log.format={flags['log.format']}"] if "log.format" in flags else []
    named = path or (Path(os.environ[FILE]) if os.environ.get(FILE) else None)
    as_json = json_wanted(flagged, file=named)
    warnings: list[str] = []

    def read() -> Settings:
        return load(path, flags=flags, schema=schema or Settings, warn=warnings.append)

    try:
        settings = read()
    except ConfigError as error:
        say(str(error), as_json=as_json)
        return EXIT_SETTINGS
    if check:
        for warning in warnings:
            say(warning, as_json=as_json, level="WARNING")
        from asyncio import run

        from actors.node.logging import install
        from actors.wiring.check import problems

        install("WARNING", settings.log.format)
        found = run(problems(settings))
        for problem in found:
            say(problem, as_json=as_json)
        if found:
            return EXIT_SETTINGS
        if settings.log.format == "json":
            say("settings are valid", as_json=True, level="INFO")
        else:
            click.echo("settings are valid")
        return EXIT_OK
    return _run(settings, read, warnings)


def _announce(settings: Settings, text: str) -> None:
    """Say something to the person who started us: on standard output, or in a log of JSON."""
    if settings.log.format == "json":
        from loguru import logger

        logger.info("{}", text)
    else:
        click.echo(text)


def _run(settings: Settings, read: Callable[[], Settings], warnings: list[str]) -> int:
    import asyncio

    from loguru import logger

    from actors.node.early_words import log_the_uncaught, say
    from actors.node.event_loop import loop_factory
    from actors.node.logging import install

    install(settings.log.level, settings.log.format)
    log_the_uncaught()
    for warning in warnings:
        logger.warning(warning)
    try:
        factory = loop_factory(settings.node.uvloop)
    except ModuleNotFoundError as error:
        say(f"node.uvloop = on, but {error}", as_json=settings.log.format == "json")
        return EXIT_SETTINGS
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_main(settings, read))


async def _main(settings: Settings, read: Callable[[], Settings]) -> int:
    from actors.node.daemon import Daemon, Hooks
    from actors.node.early_words import say
    from actors.pki.files import PkiError
    from actors.runtime import StartRefused
    from actors.runtime.watchdog import Watchdog
    from actors.transport.tls import TlsMaterialError

    try:
        relay = Relay(settings, read)
    except (PkiError, TlsMaterialError, StartRefused, OSError) as error:
        say(str(error), as_json=settings.log.format == "json")
        return EXIT_RESOURCE
    node = settings.node
    daemon = Daemon(
        node.name,
        relay.tree,
        drain_seconds=lambda: relay.settings.node.drain_deadline_seconds,
        hooks=Hooks(ready=relay.ready, drain=relay.drain, reload=relay.reload),
        watch=lambda system: Watchdog(
            node.watchdog_stall_seconds, node.watchdog_abort_seconds, system=system
        ),
    )
    relay.ask_reload = daemon.reload
    try:
        return int(await daemon.run())
    finally:
        relay.abort()


class Relay:
    """The composition: which subtrees there are, and what reload, drain and demo mean for them.

    Raises:
        PkiError, TlsMaterialError, OSError: certificates or state directory cannot be used, or
            another daemon has it.
    """

    def __init__(self, settings: Settings, read: Callable[[], Settings]) -> None:
        from actors.admin.mounts import MountTable
        from actors.controller.port import Port
        from actors.node.demo import fixed_port
        from actors.node.state_claim import StateClaim
        from actors.pki.revocation_list import list_path
        from actors.wiring.composition import Composition, load_doors
        from config.paths import state_paths

        self.settings = settings
        self._read = read
        self.paths = state_paths(settings)
        # First of all: nothing is opened, bound or announced that another daemon has.
        embedded = settings.control.backend == "embedded"
        self._claim = StateClaim(self.paths, database=embedded)
        self._pki: DevPki | None = None
        #: Set by whoever runs the daemon.
        self.ask_reload: Callable[[], Awaitable[ReloadOutcome]]
        self._identity = self._load_identity(settings)
        self._mounts = MountTable()
        import_module("actors.observe.web")  # takes a while: before the loop runs
        # Fixed once: a restarted process must listen where the others look for it.
        demo = settings.demo
        web, consumer = demo.web_listen, demo.consumer_listen
        if demo.enabled:
            self._demo_web = fixed_port((web.host, web.port), "demo.web_listen")
            self._demo_consumer = fixed_port((consumer.host, consumer.port), "demo.consumer_listen")
        served = settings.control.serve.listen
        self._controller_port = Port(served.host, served.port)
        self._cluster = self._plan_cluster() if demo.enabled and demo.cluster else None
        kinds: list[DoorKind] = [] if self._cluster else load_doors(type(self.settings))
        self._node: Composition = Composition(
            self.settings,
            kinds,
            identity=self._identity,
            database=self.paths.database,
            policy_files=self._policy_files(self.settings),
            port=self._controller_port,
            revocations=None if self._pki is None else list_path(self.paths.pki_directory),
        )

    def _load_identity(self, settings: Settings) -> TlsIdentity:
        from actors.pki.dev_pki import ensure_dev_pki
        from actors.pki.revocation_list import list_path
        from actors.wiring.certificates import configured_identity, load_relay_identity

        configured = configured_identity(settings)
        if configured is not None:
            return configured
        self._pki = ensure_dev_pki(
            self.paths.pki_directory,
            tenant=settings.demo.tenant,
            relay_id=settings.node.id,
        )
        relay, ca = self._pki.relay, self._pki.ca_certificate
        dials = bool(settings.edge.relays.accept)
        listed = list_path(self.paths.pki_directory)
        there = listed if listed.exists() else None
        return load_relay_identity(relay.certificate, relay.key, ca, dials=dials, revocations=there)

    def _plan_cluster(self) -> Cluster:
        from actors.wiring.cluster import plan_cluster

        cluster = plan_cluster(
            self.settings, self.paths.pki_directory, self._policy_files(self.settings)
        )
        self.settings = cluster.controller
        self._controller_port = cluster.port
        return cluster

    def tree(self, system: ActorSystem) -> Supervisor:
        """The root supervisor: control, the doors, observe, node, ops."""
        from actors.admin.service import control_service, ops_spec
        from actors.control.operator_commands import OperatorCommands
        from actors.runtime import ChildSpec, Intensity, Supervisor

        budget = Intensity(restarts=30, period=60.0)
        subtrees = self._node.children(system)  # first: commands are those of the open doors
        commands = {
            **OperatorCommands(system).commands(),
            **self._node.commands(),
            "reload": self._reload_command,
        }
        children = [
            *subtrees,
            ChildSpec("node", lambda: Supervisor(self._processes(), intensity=budget)),
            ops_spec(
                control_service(system, self._mounts, commands),
                self.paths.control_socket,
                lock=self._claim.socket,
            ),
        ]
        return Supervisor(children, intensity=Intensity(restarts=10, period=60.0))

    def _policy_files(self, settings: Settings) -> list[Path]:
        """The rule files; the demo without any writes one that allows its own tenant."""
        from actors.files.atomic import replace_file

        files = list(settings.control.policy.files)
        if files or not settings.demo.enabled:
            return files
        path = self.paths.state_directory / "demo-policy.toml"
        if not path.exists():
            rules = (
                "# Rules of the demo: agents of its tenant may reach each other.\n"
                "# Both checks of a stream must match: consumer -> service, provider -> consumer.\n"
                f'[[rule]]\nid = "demo"\ntenant = "{settings.demo.tenant}"\n'
                'caller = "*"\ntarget = "*"\ndecision = "allow"\n'
            )
            replace_file(path, rules.encode(), 0o644)
        return [path]

    # Hooks of the daemon.

    async def ready(self, system: ActorSystem) -> None:
        """After the tree is up: start the demo's processes."""
        from config.endpoint import Endpoint

        def tell(text: str) -> None:
            _announce(self.settings, text)

        if self._cluster is not None:
            for relay_id, address in self._cluster.addresses:
                tell(f"trunkline: relay {relay_id} on {Endpoint(*address)} (QUIC)")
        for place in self._node.listening():
            where = Endpoint(*(place.address or ("", 0)))
            relay_id = self.settings.node.id
            tell(f"trunkline: relay {relay_id} on {where} ({place.transport})")
        if self.settings.control.serve.enabled:
            tell(f"trunkline: controller on {self._controller_port} (gRPC)")
        if self._node.metrics_address is not None:
            host, port = self._node.metrics_address
            tell(f"trunkline: metrics on http://{Endpoint(host, port)}/metrics")
        tell(f"trunkline: control socket {self.paths.control_socket}")
        if self.settings.demo.enabled:
            from actors.node.demo import announce_demo

            await announce_demo(self._mounts, self._demo_consumer, tell)
            if self._cluster is not None:
                tell("demo: stop a relay with: trunkline ctl kill /node/relay-1")

    def _relays(self) -> list[tuple[str, int]]:
        """Where the demo's agents reach the relays we run, once they listen."""
        if self._cluster is not None:
            return [address for _, address in self._cluster.addresses]
        return [
            place.address
            for place in self._node.listening()
            if place.transport == "QUIC" and place.address is not None
        ]

    def _processes(self) -> list[ChildSpec]:
        """The process children: the demo's, or none."""
        from actors.node.demo import demo_children

        if not self.settings.demo.enabled:
            return []
        relays = self._cluster.children(self._mounts) if self._cluster is not None else []
        return [*relays, *demo_children(self._demo_plan, self._mounts)]

    def _demo_plan(self) -> DemoPlan:
        from actors.node.demo import DemoPlan

        assert self._pki is not None
        agents = {
            name: (str(leaf.certificate), str(leaf.key), str(self._pki.ca_certificate))
            for name, leaf in self._pki.agents.items()
        }
        return DemoPlan(
            relays=tuple(self._relays()),
            agents=agents,
            control_socket=str(self.paths.control_socket),
            web=self._demo_web,
            consumer=self._demo_consumer,
            log_level=self.settings.log.level,
            log_format=self.settings.log.format,
        )

    async def drain(self, system: ActorSystem) -> None:
        """Stop accepting, and wait for the streams."""
        await self._node.drain()

    async def reload(self, system: ActorSystem) -> ReloadOutcome:
        """SIGHUP: settings, certificates, rules, log level; says what needs a restart."""
        from loguru import logger

        from actors.node.daemon import ReloadOutcome
        from actors.node.logging import install
        from actors.wiring.reload import ReloadRefused, reload

        try:
            done = await reload(
                system,
                self.settings,
                self._read,
                self._load_identity,
                self._policy_files,
                self._identity,
            )
        except ReloadRefused as refused:
            logger.error("reload refused: {}", refused)
            return ReloadOutcome(False, str(refused))
        self.settings, self._identity = done.plan.settings, done.identity
        for change in done.plan.live:
            logger.info("changed: {}", change)
        for change in done.plan.needs_restart:
            logger.warning("needs a restart: {}", change)
        install(self.settings.log.level, self.settings.log.format)
        problems = self._node.reload(self.settings, self._identity)
        if problems:
            logger.error("reloaded in part: {}; but {}", done, problems)
            return ReloadOutcome(False, f"in part: {done}; but {problems}")
        logger.info("reloaded: {}", done)
        return ReloadOutcome(True, str(done))

    async def _reload_command(self, args: Arguments, initiator: str) -> tuple[list[Row], Row]:
        """`trunkline ctl reload`. No args. Result: what is in force."""
        from loguru import logger

        from wire.admin.errors import Declined

        args.finish()
        logger.warning("reload asked for by {}", initiator)
        outcome = await self.ask_reload()
        if not outcome.done:
            raise Declined(outcome.text)
        return [], {"reloaded": outcome.text}

    def abort(self) -> None:
        """Release what outlives the tree."""
        self._node.abort()
        self._claim.abort()


if __name__ == "__main__":
    from actors.node.standard_streams import open_standard_streams

    open_standard_streams()
    from actors.node.early_words import json_wanted, run_in_json

    if json_wanted(sys.argv[1:]):
        run_in_json(
            lambda: serve.main(prog_name="supervisor.py", standalone_mode=False),
            click.ClickException,
        )
    serve(prog_name="supervisor.py")
