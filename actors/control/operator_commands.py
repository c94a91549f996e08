"""What operators say to the control actors over the daemon's control socket.

Plain functions from arguments to rows, for whoever serves that socket. Rules are named as in rule
files; times are wall-clock milliseconds.

Source: protocol sheet ORP 4.5; docs/decisions/0014.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from loguru import logger

from actors.control.backend import AuditFilter
from actors.control.limits import MAX_AUDIT_ROWS, MAX_PATTERN
from actors.control.messages import P2PMode, RelayMode, Resolve, Unavailable
from actors.control.operator_messages import (
    AddRule,
    ListRules,
    QueryAudit,
    ReloadPolicy,
    RemoveRule,
    WouldDecide,
)
from actors.control.policy.rule import Effect, Rule
from actors.runtime import ActorRef, ActorSystem, ReplyError, Request, RuntimeFault
from wire.admin.arguments import Arguments
from wire.admin.errors import BadArguments, Declined
from wire.admin.messages import Row

R = TypeVar("R")
Answer = tuple[Sequence[Row], Row]

#: Seconds a change of the rules, and a query, may take.
POLICY_SECONDS: Final = 5.0
AUDIT_SECONDS: Final = 10.0
#: For a registry that restarted, or lost a provider, and waits for it.
RESOLVE_SECONDS: Final = 10.0
_LAST_MS: Final = 2**63 - 1


class OperatorCommands:
    """What operators say to the control actors over the daemon's control socket.

    Args:
        system: where the control actors live.
        base: path of the control subtree.
    """

    def __init__(self, system: ActorSystem, base: str = "/control") -> None:
        self._system = system
        self._base = base

    def commands(self) -> Mapping[str, Callable[[Arguments, str], Awaitable[Answer]]]:
        """The commands by name."""
        return {
            "policy_add": self.policy_add,
            "policy_list": self.policy_list,
            "policy_remove": self.policy_remove,
            "policy_reload": self.policy_reload,
            "policy_judge": self.policy_judge,
            "audit_query": self.audit_query,
            "service_resolve": self.service_resolve,
        }

    async def policy_add(self, args: Arguments, initiator: str) -> Answer:
        """args: the fields of a rule. Result: id."""
        rule = Rule(
            id=args.text("id", "", most=MAX_PATTERN),
            tenant=args.text("tenant", most=MAX_PATTERN),
            caller=args.text("caller", most=MAX_PATTERN),
            target=args.text("target", most=MAX_PATTERN),
            method=args.text("method", "", most=MAX_PATTERN),
            effect=_word(args, "decision", Effect, None),
            expires_ms=args.integer("expires_ms", 0, least=0, most=_LAST_MS),
            p2p_mode=_word(args, "p2p_mode", P2PMode, P2PMode.ALLOWED),
            relay_mode=_word(args, "relay_mode", RelayMode, RelayMode.SPLICE),
        )
        args.finish()
        rule_id = await self._ask("policy", AddRule(rule), POLICY_SECONDS)
        logger.warning("rule {} added by {}", rule_id, initiator)
        return (), {"id": rule_id}

    async def policy_list(self, args: Arguments, _initiator: str) -> Answer:
        """args: tenant (all when empty). Rows: the rules in force, each with its source."""
        tenant = args.text("tenant", "", most=MAX_PATTERN)
        args.finish()
        listed = await self._ask("policy", ListRules(tenant), POLICY_SECONDS)
        rows = [_rule_row(entry.rule) | {"source": entry.source} for entry in listed]
        return rows, {"rules": len(rows)}

    async def policy_remove(self, args: Arguments, initiator: str) -> Answer:
        """args: tenant, id. Result: removed."""
        message = RemoveRule(
            args.text("tenant", most=MAX_PATTERN), args.text("id", most=MAX_PATTERN)
        )
        args.finish()
        removed = await self._ask("policy", message, POLICY_SECONDS)
        if removed:
            logger.warning("rule {} removed by {}", message.rule_id, initiator)
        return (), {"removed": removed}

    async def policy_reload(self, args: Arguments, initiator: str) -> Answer:
        """No args. Result: how many rules are in force, by source."""
        args.finish()
        loaded = await self._ask("policy", ReloadPolicy(), POLICY_SECONDS)
        logger.warning("rules loaded again by {}", initiator)
        return (), {"file_rules": loaded.file_rules, "store_rules": loaded.store_rules}

    async def policy_judge(self, args: Arguments, _initiator: str) -> Answer:
        """args: tenant, caller, target, method. What would be decided; nothing is recorded.

        Result: allow, reason (a rule's id, or why there is none), p2p_mode, relay_mode, and rule,
        as `policy_list` has it; None when no rule decides.
        """
        question = WouldDecide(
            args.text("tenant", most=MAX_PATTERN),
            args.text("caller", most=MAX_PATTERN),
            args.text("target", most=MAX_PATTERN),
            args.text("method", "", most=MAX_PATTERN),
        )
        args.finish()
        decision = await self._ask("policy", question, POLICY_SECONDS)
        listed = await self._ask("policy", ListRules(question.tenant), POLICY_SECONDS)
        # Ids are unique within a source only: of several the one that says this.
        rules = [
            _rule_row(entry.rule) | {"source": entry.source}
            for entry in listed
            if entry.rule.id == decision.reason
            and (entry.rule.effect is Effect.ALLOW) == decision.allow
        ]
        return (), {
            "allow": decision.allow,
            "reason": decision.reason,
            "p2p_mode": decision.p2p_mode.value,
            "relay_mode": decision.relay_mode.value,
            "rule": rules[0] if rules else None,
        }

    async def service_resolve(self, args: Arguments, _initiator: str) -> Answer:
        """args: tenant, service. Rows: who provides it, here and at other relays, best first."""
        question = Resolve(
            args.text("tenant", most=MAX_PATTERN), args.text("service", most=MAX_PATTERN)
        )
        args.finish()
        resolution = await self._ask("registry", question, RESOLVE_SECONDS)
        rows: list[Row] = [
            {
                "provider": one.uri,
                "relay": one.relay_id,
                "endpoint": one.relay_endpoint,
                "target": one.local_address,
                "here": one.connection is not None,
                "path": None if one.connection is None else one.connection.path,
            }
            for one in resolution.providers
        ]
        return rows, {"providers": len(rows)}

    async def audit_query(self, args: Arguments, _initiator: str) -> Answer:
        """args: tenant, caller, target, since_ms, limit. Rows: decisions, newest first."""
        wanted = AuditFilter(
            tenant=args.text("tenant", most=MAX_PATTERN),
            caller=args.text("caller", "", most=MAX_PATTERN),
            target=args.text("target", "", most=MAX_PATTERN),
            since_ms=args.integer("since_ms", 0, least=0, most=_LAST_MS),
            limit=args.integer("limit", 100, least=0, most=MAX_AUDIT_ROWS),
        )
        args.finish()
        records = await self._ask("audit", QueryAudit(wanted), AUDIT_SECONDS)
        rows: list[Row] = [
            {
                "at_ms": record.at,
                "tenant": record.tenant,
                "caller": record.caller,
                "target": record.target,
                "method": record.method,
                "decision": "allow" if record.allow else "deny",
                "reason": record.reason,
                "stream_id": record.stream_id,
            }
            for record in records
        ]
        return rows, {"records": len(rows)}

    async def _ask(self, name: str, message: Request[R], timeout: float) -> R:
        ref: ActorRef | None = self._system.ref(f"{self._base}/{name}")
        if ref is None:
            raise Declined(f"there is no {self._base}/{name}")
        try:
            return await ref.ask(message, timeout=timeout)
        except ReplyError as error:
            refusal = error.refusal
            why = refusal.why if isinstance(refusal, Unavailable) else str(refusal)
            raise Declined(why) from None
        except RuntimeFault as error:
            raise Declined(f"{name}: {error}") from None


E_ = TypeVar("E_", Effect, P2PMode, RelayMode)


def _word(args: Arguments, name: str, words: type[E_], default: E_ | None) -> E_:
    text = args.text(name, None if default is None else default.value, most=32)
    for word in words:
        if word.value == text and word is not Effect.UNSPECIFIED:
            return word
    known = ", ".join(word.value for word in words if word is not Effect.UNSPECIFIED)
    raise BadArguments(f"{name} must be one of {known}")


def _rule_row(rule: Rule) -> Row:
    return {
        "id": rule.id,
        "tenant": rule.tenant,
        "caller": rule.caller,
        "target": rule.target,
        "method": rule.method,
        "decision": rule.effect.value,
        "p2p_mode": rule.p2p_mode.value,
        "relay_mode": rule.relay_mode.value,
        "expires_ms": rule.expires_ms,
        "created_ms": rule.created_ms,
    }
