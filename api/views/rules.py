"""The rules that judge the fleet's health."""

from __future__ import annotations

from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from api.pagination import cut_list
from api.params import paging_of
from api.rule_words import condition_words
from api.schema.event_answers import RuleAnswer, RuleListAnswer
from api.views.base import ApiView
from health.queries import NO_OPENINGS, openings_by_rule
from health.rule_table import rules_now
from inventory.fleet import fleet_now


class RuleListView(ApiView):
    """The rules: what each looks at, its condition in words and numbers, whether this fleet reports what it needs, and how often it opened.

    `HEALTH_RULES` changes them. Times of `opened_24h` and `opened_7d` are those of readings, back from now.
    """

    name = "Rules"
    tag = "health"
    operation_id = "rules"
    answer = RuleListAnswer
    parameters = paging_of("all")

    def get(self, request: Request) -> Response:
        """The rules, whether they have data here, and how often they opened."""
        found = openings_by_rule(timezone.now())
        metrics = fleet_now().metric_names()
        answers = []
        for rule in rules_now().values():
            missing, openings = list(rule.missing(metrics)), found.get(rule.name, NO_OPENINGS)
            answers.append(
                RuleAnswer(
                    name=rule.name,
                    title=rule.title,
                    finds=rule.finds,
                    condition=condition_words(rule),
                    entity=rule.entity,
                    severity=rule.severity,  # type: ignore[arg-type]  # checked when the rules are read
                    action=rule.action,
                    action_text=rule.action_text,
                    source=rule.source,
                    inferred=rule.inferred,
                    quiet=rule.quiet,
                    enabled=rule.enabled,
                    has_data=not missing,
                    missing=missing,
                    open=openings.ongoing,
                    opened_24h=openings.in_day,
                    opened_7d=openings.in_week,
                )
            )
        part, links = cut_list(request, self.values, answers)
        return Response(RuleListAnswer(part, len(answers), **links._asdict()))
