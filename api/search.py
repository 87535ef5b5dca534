"""Finds hosts, GPUs, pods, namespaces, rules and XIDs by a part of their names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from django.db.models import Case, Count, IntegerField, Q, QuerySet, Value, When

from api.links import item_url
from api.schema.answers import FoundAnswer
from health.rule_table import rules_now
from inventory.models import GPU, Host

_XID = re.compile(r"(?:xid[ _-]?)?([0-9]{1,4})", re.IGNORECASE | re.ASCII)


def find(text: str, limit: int) -> list[FoundAnswer]:
    """At most ``limit`` matches: of each kind first those whose name begins with the text. Four queries at most."""
    wanted = text.strip()
    return list(islice(_found(wanted, limit), limit)) if wanted else []


def _found(text: str, limit: int) -> Iterator[FoundAnswer]:
    yield from _xids(text)
    hosts = Host.objects.annotate(gpu_count=Count("gpus", filter=Q(gpus__mig_id="")))
    for name, count in _matching(hosts, "name", text).values_list("name", "gpu_count")[:limit]:
        yield FoundAnswer("host", name, _gpus(count), item_url("/hosts", name))
    gpus = GPU.objects.filter(mig_id="")
    # People leave out what all ids begin with.
    named = gpus.filter(Q(id__istartswith=text) | Q(id__istartswith=f"GPU-{text}")).order_by("id")
    for gpu_id, host, slot in named.values_list("id", "host__name", "index")[:limit]:
        where = " · ".join(part for part in (host, None if slot is None else f"gpu {slot}") if part)
        yield FoundAnswer("gpu", gpu_id, where, item_url("/gpus", gpu_id))
    for kind in ("pod", "namespace"):
        used = _matching(gpus.values(kind).annotate(gpu_count=Count("pk")), kind, text)
        for name, count in used.values_list(kind, "gpu_count")[:limit]:
            yield FoundAnswer(
                "pod" if kind == "pod" else "namespace", name, f"on {_gpus(count)}", f"/?{urlencode({kind: name})}"
            )

    yield from _rules(text)


def _xids(text: str) -> Iterator[FoundAnswer]:
    """The events of a code: ``79``, ``xid 79``."""
    code = _XID.fullmatch(text)
    if code and int(code[1]) in rules_now().xids:
        known = rules_now().xids[int(code[1])]
        yield FoundAnswer("xid", f"XID {known.code}", known.title, _events_url(subject=str(known.code)))


def _rules(text: str) -> Iterator[FoundAnswer]:
    """The events of rules with this in their name or title."""
    wanted = text.casefold()
    found = [rule for rule in rules_now().values() if wanted in rule.name or wanted in rule.title.casefold()]
    for rule in sorted(found, key=lambda each: not each.name.startswith(wanted)):
        yield FoundAnswer("rule", rule.title, f"events of {rule.name}", _events_url(rule=rule.name))


def _events_url(**filters: str) -> str:
    return f"/events?{urlencode({'state': 'all', **filters})}"


def _matching(rows: QuerySet[Any, Any], field: str, text: str) -> QuerySet[Any, Any]:
    begins = Case(When(**{f"{field}__istartswith": text}, then=Value(0)), default=Value(1), output_field=IntegerField())
    matching: QuerySet[Any, Any] = rows.filter(**{f"{field}__icontains": text}).annotate(begins=begins)
    return matching.order_by("begins", field)


def _gpus(count: int) -> str:
    return f"{count} GPU{'' if count == 1 else 's'}"
