from __future__ import annotations

import pytest

from ingest.capture.header import parse_header
from ingest.errors import SourceError
from tests.ingest.captures import COLUMNS


def test_the_usual_columns_are_all_understood() -> None:
    header = parse_header(COLUMNS, needs_timestamp=True)
    assert header.names == COLUMNS
    assert header.extra == ()
    assert [header.column(field) for field in ("timestamp", "uuid", "model_name", "hostname", "labels")] == [
        0,
        4,
        5,
        6,
        11,
    ]
    assert header.column("mig_id") is None


def test_columns_may_be_reordered_fewer_more_and_of_another_case() -> None:
    header = parse_header(["Value", " UUID ", "pci_bus_id", "METRIC_NAME", "Timestamp"], needs_timestamp=True)
    assert [header.column(field) for field in ("value", "uuid", "metric_name", "timestamp")] == [0, 1, 3, 4]
    assert header.extra == ((2, "pci_bus_id"),)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("a,b", "lacks the columns timestamp, metric_name, value, uuid (or labels_raw); it has a, b"),
        ("timestamp,metric_name,uuid", "lacks the column value; it has timestamp, metric_name, uuid"),
        ("metric_name,uuid,value", "lacks the column timestamp; it has"),
        ("timestamp;metric_name;uuid;value", "it has timestamp;metric_name;uuid;value"),
    ],
)
def test_missing_columns_are_named(columns: str, said: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse_header(columns.split(","), needs_timestamp=True)
    assert said in str(caught.value)


def test_a_header_full_of_rubbish_is_shown_in_one_short_line() -> None:
    with pytest.raises(SourceError) as caught:
        parse_header(["\x1b[31m\n" * 500], needs_timestamp=True)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_the_time_column_may_be_missing_where_it_is_not_used() -> None:
    assert parse_header(["metric_name", "uuid", "value"], needs_timestamp=False).column("timestamp") is None


def test_the_labels_may_stand_for_the_uuid() -> None:
    assert (
        parse_header(["timestamp", "metric_name", "value", "labels_raw"], needs_timestamp=True).column("uuid") is None
    )


@pytest.mark.parametrize("columns", ["timestamp,metric_name,uuid,value,value", "timestamp,metric_name,uuid,value,x,x"])
def test_a_column_named_twice_is_refused(columns: str) -> None:
    with pytest.raises(SourceError, match="twice"):
        parse_header(columns.split(","), needs_timestamp=True)


def test_two_names_of_one_field_are_refused_where_that_leaves_a_choice() -> None:
    with pytest.raises(SourceError, match="several columns for uuid: 'uuid' and 'UUID'"):
        parse_header(["timestamp", "metric_name", "UUID", "uuid", "value"], needs_timestamp=True)


def test_the_lower_case_hostname_and_the_exported_pod_are_preferred() -> None:
    header = parse_header(
        ["timestamp", "metric_name", "uuid", "value", "Hostname", "hostname", "pod", "exported_pod"],
        needs_timestamp=True,
    )
    assert header.columns["hostname"] == (5, 4)
    assert header.columns["pod"] == (7, 6)
