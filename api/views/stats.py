"""How the pipeline is doing."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from api.pipeline import (
    ask_broker,
    broker_answer,
    collector_answer,
    host_answers,
    read_collectors,
    store_answer,
    total_refused,
)
from api.serializers import StatsSerializer
from api.views.base import ApiView
from stores.open import get_store


class StatsView(ApiView):
    """How the pipeline is doing: broker, subscribers and their lag, collectors' counts, store size, the newest reading's age.

    A broker that does not answer is told here (`broker.available`), not an error: readings can be asked for without it.
    """

    name = "Pipeline statistics"
    tag = "pipeline"
    operation_id = "stats"
    answer = StatsSerializer

    def get(self, request: Request) -> Response:
        """Broker, subscribers and lag, collectors, store. A broker that does not answer is told here, not a 503."""
        store = store_answer(get_store().stats())
        collectors = read_collectors()
        broker = ask_broker()
        return Response(
            {
                "broker": broker_answer(broker),
                "subscribers": broker.subscribers,
                "collectors": [collector_answer(each) for each in collectors],
                "readings": {
                    "stored": sum(each.readings_stored for each in collectors),
                    "refused": total_refused(collectors),
                },
                "store": store,
                "hosts": host_answers(),
            }
        )
