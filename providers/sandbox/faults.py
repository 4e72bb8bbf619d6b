"""Failing on purpose: the fault plan, its text form, and the answers that the faults give.

A plan is a comma-separated list of rules, `where:kind[=argument][@endpoint][#nth or #from-to or %percent]`:

    submit:drop_after_accept@fal-ai/flux-lora#2     the second submit to flux-lora is taken and never answered
    result:truncate@*video*%10                      one video in ten breaks off while it is downloaded
    job:fail=422/content_policy_violation#1-3       the first three jobs are refused by the safety check
    status:unavailable=503%20                       every fifth look or so meets a broken gateway

`@` takes a glob over endpoint names (default: all). Numbers count, from 1, the requests that the rule could have met.
Percentages are drawn from a seeded generator, so that the same run fails in the same places. The first rule that
applies wins, except for `job:` rules, which are drawn when a job is accepted, kept with it across restarts, and add up.
"""

from __future__ import annotations

import random
import re
import threading
from dataclasses import dataclass
from fnmatch import fnmatchcase

from domain.errors import BadInput
from providers.sandbox.schemas import issue
from providers.sandbox.wire import Reply, refusal

_ANSWERS = {"refuse", "lock", "rate_limit", "rate_limit_body", "unavailable", "stall", "malformed"}
KINDS: dict[str, frozenset[str]] = {
    "submit": frozenset(_ANSWERS | {"drop_before_accept", "drop_after_accept", "stall_after_accept", "no_capacity"}),
    "status": frozenset(_ANSWERS | {"drop", "unknown_word", "vanish"}),
    "result": frozenset(_ANSWERS | {"drop", "vanish"}),
    "cancel": frozenset(_ANSWERS | {"drop", "ignore"}),
    "upload": frozenset(_ANSWERS | {"drop"}),
    "file": frozenset({"refuse", "unavailable", "stall", "drop", "truncate", "expire", "expire_once"}),
    "list": frozenset(_ANSWERS | {"drop", "hide", "no_input"}),
    "usage": frozenset(_ANSWERS | {"drop", "vanish"}),
    "schema": frozenset(_ANSWERS | {"drop", "vanish", "rename"}),
    "job": frozenset(
        {"fail", "never_ends", "stay_queued", "ignore", "slow", "no_file", "truncate", "expire", "nsfw", "charge"}
        | {"freeze", "no_gpu", "trainer"}
    ),
}
"""Which kinds of fault exist where.

`list` is fal's list of an endpoint's requests, `usage` what it says it charged: `@billing-events`, `@usage`, `schema`
its page that says what an endpoint takes.

refuse=STATUS[/TYPE] (422, always JSON) · lock (403, exhausted balance) · rate_limit=SECONDS (429 with Retry-After) ·
rate_limit_body=SECONDS (429 that says it in its body alone) · unavailable=STATUS (a gateway's HTML page, 503) ·
stall[=SECONDS] (silence, then the connection closes) · malformed (broken JSON; a submit is accepted all the same) ·
drop (the connection closes without an answer) · unknown_word=WORD · vanish (404) · fail=STATUS[/TYPE] (500) ·
never_ends · stay_queued · ignore=PARAMETER (loras; at cancel: it is taken and nothing stops) · slow=SECONDS (5) ·
no_file (success without one) · truncate (Content-Length promises more than comes) · expire (the file is 404) ·
expire_once (each file is 404 from its first fetch on, and the next look at the result gives it a new address) · nsfw
· hide (the list shows nothing) · no_input (the list shows no inputs) · charge[=USD] (charged that much, or the list
price, however it ended) · rename=FIELD (the schema has another field in its place). For rented machines: no_capacity
(no such machine is free) · stay_queued (it never gets a runtime) · fail (its host dies under it) · freeze (it stands
still and says nothing) · no_gpu (it comes without one) · trainer=WHAT (its trainer fails: nan, short, oom, crash,
no_file, gated) · at cancel, refuse=403 (it may not be deleted).
"""
_WITH_THE_JOB = frozenset({"truncate", "expire", "no_file"})
_RULE = re.compile(
    r"(?P<where>\w+):(?P<kind>\w+)(=(?P<argument>[\w./-]+))?(@(?P<glob>[^#%,\s]+))?"
    r"(#(?P<first>\d+)(-(?P<last>\d+))?|%(?P<percent>\d+(\.\d+)?))?"
)


@dataclass(frozen=True)
class Fault:
    """One rule of a plan."""

    text: str
    where: str
    kind: str
    argument: str | None = None
    endpoints: str = "*"
    first: int | None = None
    last: int | None = None
    percent: float | None = None

    def number(self, default: float) -> float:
        try:
            return default if self.argument is None else float(self.argument)
        except ValueError:
            return default

    def hits(self, nth: int, seed: int) -> bool:
        """Does it apply to the nth request that it could have met?"""
        if self.first is not None:
            return self.first <= nth <= (self.last or self.first)
        if self.percent is not None:
            # Not for secrets: it only has to fall the same way each time.
            return random.Random(f"{seed}/{self.text}/{nth}").random() * 100 < self.percent  # noqa: S311
        return True


def parse_faults(text: str) -> tuple[Fault, ...]:
    """The rules of a plan's text; `BadInput` quotes the rule that cannot be read and says what can."""
    return tuple(_parse_rule(part.strip()) for part in text.split(",") if part.strip())


def _parse_rule(text: str) -> Fault:
    match = _RULE.fullmatch(text)
    if match is None:
        raise BadInput(f"The fault {text!r} cannot be read: write where:kind[=argument][@endpoint][#nth or %percent].")
    where, kind = match["where"], match["kind"]
    if where == "result" and kind in _WITH_THE_JOB:
        where = "job"
    if where not in KINDS:
        raise BadInput(f"The fault {text!r} happens at {where!r}: write one of {', '.join(KINDS)}.")
    if kind not in KINDS[where]:
        raise BadInput(
            f"The fault {text!r} is of kind {kind!r}: at {where} there are {', '.join(sorted(KINDS[where]))}."
        )
    return Fault(
        text=text,
        where=where,
        kind=kind,
        argument=match["argument"],
        endpoints=match["glob"] or "*",
        first=int(match["first"]) if match["first"] else None,
        last=int(match["last"]) if match["last"] else None,
        percent=float(match["percent"]) if match["percent"] else None,
    )


class FaultPlan:
    """The rules in force, with how often each could have struck and did. Safe from many threads."""

    def __init__(self, text: str | None = None, *, seed: int = 0) -> None:
        self._lock = threading.Lock()
        self._seed = seed
        self.set(text or "")

    def set(self, text: str) -> None:
        """Put another plan in force; counting begins anew. `BadInput` leaves the old one standing."""
        rules = parse_faults(text)
        with self._lock:
            self.text = text
            self._rules = rules
            self._met = [0] * len(rules)
            self._applied = [0] * len(rules)

    def pick(self, where: str, endpoint: str) -> Fault | None:
        """The fault this request meets, if any; it counts as applied."""
        found = self.pick_all(where, endpoint, at_most=1)
        return found[0] if found else None

    def pick_all(self, where: str, endpoint: str, at_most: int | None = None) -> tuple[Fault, ...]:
        found: list[Fault] = []
        with self._lock:
            for index, rule in enumerate(self._rules):
                if rule.where != where or not fnmatchcase(endpoint, rule.endpoints):
                    continue
                self._met[index] += 1
                if rule.hits(self._met[index], self._seed) and (at_most is None or len(found) < at_most):
                    self._applied[index] += 1
                    found.append(rule)
        return tuple(found)

    def report(self) -> dict[str, object]:
        with self._lock:
            rules = zip(self._rules, self._met, self._applied, strict=True)
            return {
                "plan": self.text,
                "faults": [{"fault": rule.text, "met": met, "applied": applied} for rule, met, applied in rules],
            }


def answer_of(fault: Fault) -> Reply:
    """The reply of a fault that is nothing but a reply."""
    match fault.kind:
        case "refuse":
            status, error_type = status_and_type(fault, 422)
            if status == 422:
                return Reply.of(422, {"detail": [issue(["body"], error_type or "value_error", "Refused on purpose")]})
            return refusal(status, f"Refused on purpose by the sandbox: {fault.text}", error_type)
        case "lock":
            return locked_account()
        case "rate_limit":
            return Reply.of(429, {"detail": "Too many requests"}, {"Retry-After": f"{fault.number(1):g}"})
        case "rate_limit_body":
            return Reply.of(429, {"detail": "Too many requests", "retry_after": fault.number(1)})
        case "unavailable":
            return gateway_page(int(fault.number(503)))
        case "stall" | "stall_after_accept":
            return Reply(stall_seconds=fault.number(600), is_dropped=True)
        case "malformed":
            return Reply(200, {"Content-Type": "application/json"}, b'{"status": "IN_QUEUE", "request_id": "6f')
        case "vanish":
            return refusal(404, "Request not found")
        case "expire" | "expire_once":
            return refusal(404, "File not found")
        case "drop" | "drop_before_accept" | "drop_after_accept":
            return Reply(is_dropped=True)
        case _:
            raise AssertionError(f"{fault.kind} is no answer")


def status_and_type(fault: Fault, default: int) -> tuple[int, str | None]:
    """`=422/content_policy_violation` → (422, "content_policy_violation")."""
    status, _, error_type = (fault.argument or str(default)).partition("/")
    return (int(status) if status.isdigit() else default), error_type or None


def locked_account() -> Reply:
    """What an account without balance gets, word for word as users quote it (fal-ai/fal #922, #1147; 2026)."""
    return refusal(403, "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing.")


def gateway_page(status: int) -> Reply:
    """A gateway's own error page: no JSON, no x-fal-request-id. fal-client retries on the word nginx in it."""
    words = {502: "Bad Gateway", 503: "Service Temporarily Unavailable", 504: "Gateway Time-out"}.get(status, "Error")
    page = f"<html><head><title>{status} {words}</title></head><body><center>nginx</center></body></html>"
    return Reply(status, {"Content-Type": "text/html"}, page.encode())
