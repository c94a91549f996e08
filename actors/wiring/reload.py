"""SIGHUP and `trunkline ctl reload`: settings, certificates and rules are read again, all or none.

Everything is read and judged before anything is used. The rules go first, because the actor that
has them may still refuse; what follows cannot fail. A refusal names what is wrong and what stays in
force.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from actors.control.operator_messages import PolicyRefused, ReloadPolicy
from actors.pki.files import PkiError
from actors.runtime import ActorSystem, AskTimeout, ReplyError, RuntimeFault
from actors.transport.tls import TlsIdentity, TlsMaterialError
from config.errors import ConfigError
from config.reload import ReloadPlan, plan_reload
from config.schema import Settings
from wire.orp.identity import RelayUri, parse_identity

#: Seconds the rules may take to load, an unreachable store included.
RULES_SECONDS: Final = 8.0


class ReloadRefused(Exception):
    """Something is wrong, and everything is as it was; the text says what and why."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What is in force now."""

    plan: ReloadPlan
    identity: TlsIdentity
    rules: str

    def __str__(self) -> str:
        until = self.identity.chain[0].not_valid_after_utc
        changed = ", ".join(change.key for change in self.plan.live) or "nothing"
        return (
            f"certificate of {self.identity.uri} until {until:%Y-%m-%d %H:%M} UTC; {self.rules}; "
            f"settings changed: {changed}"
        )


async def reload(
    system: ActorSystem,
    settings: Settings,
    read: Callable[[], Settings],
    load_identity: Callable[[Settings], TlsIdentity],
    rule_files: Callable[[Settings], Sequence[Path]],
    old: TlsIdentity,
) -> Reloaded:
    """Read everything again. The rules are in force afterwards, the rest is the caller's to apply.

    Raises:
        ReloadRefused: nothing was changed.
    """
    try:
        plan = plan_reload(settings, read())
        identity = load_identity(plan.settings)
        if _relay_id(identity) != _relay_id(old):
            # Peers know this relay by its id, and so does the controller.
            raise ReloadRefused(
                f"the certificate is of {identity.uri}, and this is {old.uri}: a relay does not "
                f"become another one; {_kept(old)}"
            )
        files = tuple(rule_files(plan.settings))
        rules = await _load_rules(system, files)
    except (ConfigError, PkiError, TlsMaterialError, OSError) as error:
        raise ReloadRefused(f"{error}; {_kept(old)}") from None
    except ReplyError as error:
        refusal = error.refusal
        why = "; ".join(refusal.problems) if isinstance(refusal, PolicyRefused) else str(refusal)
        raise ReloadRefused(f"rules: {why}; {_kept(old)}") from None
    except AskTimeout:
        raise ReloadRefused(
            f"rules: not loaded within {RULES_SECONDS:g} s, and may be yet; {_kept(old)}"
        ) from None
    except RuntimeFault as error:
        raise ReloadRefused(f"rules: {error}; {_kept(old)}") from None
    return Reloaded(plan, identity, rules)


async def _load_rules(system: ActorSystem, files: tuple[Path, ...]) -> str:
    policy = system.ref("/control/policy")
    if policy is None:
        return "no rules here"
    loaded = await policy.ask(ReloadPolicy(files), timeout=RULES_SECONDS)
    return f"{loaded.file_rules} rules of files, {loaded.store_rules} of the store"


def _relay_id(identity: TlsIdentity) -> str:
    parsed = parse_identity(identity.uri)
    return parsed.relay_id if isinstance(parsed, RelayUri) else ""


def _kept(identity: TlsIdentity) -> str:
    until = identity.chain[0].not_valid_after_utc
    return (
        "nothing was changed: settings, rules and the certificate (valid until "
        f"{until:%Y-%m-%d %H:%M} UTC) stay"
    )
