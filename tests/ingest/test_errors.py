from __future__ import annotations

import pytest

from ingest import errors


@pytest.mark.parametrize("kind", [errors.SourceError, errors.StateError, errors.BrokerRefusal, errors.StoreRefusal])
def test_whatever_ends_a_service_is_caught_as_one(kind: type[Exception]) -> None:
    with pytest.raises(errors.IngestError, match="why"):
        raise kind("why")
