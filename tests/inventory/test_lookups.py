"""inventory.lookups: each list of the admin is one that takes no costly filter."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.core.exceptions import SuspiciousOperation
from django.test import RequestFactory

from inventory.lookups import MOST_WORDS, CheapLookups
from inventory.models import GPU

REQUEST = RequestFactory().get("/")


def test_every_list_refuses_regular_expressions() -> None:
    for model, options in admin.site._registry.items():
        assert isinstance(options, CheapLookups), model
        assert not options.lookup_allowed(f"{model._meta.pk.name}__regex", "x", REQUEST)
        assert options.lookup_allowed(f"{model._meta.pk.name}__exact", "x", REQUEST)


def test_a_search_has_few_words(db: None) -> None:
    gpus = admin.site._registry[GPU]
    gpus.get_search_results(REQUEST, GPU.objects.all(), " ".join("a" * MOST_WORDS))
    with pytest.raises(SuspiciousOperation, match="at most 32 words"):
        gpus.get_search_results(REQUEST, GPU.objects.all(), " ".join("a" * (MOST_WORDS + 1)))
