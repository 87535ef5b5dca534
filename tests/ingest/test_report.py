from __future__ import annotations

from collections import Counter

from ingest.report import Report


def test_a_report_is_one_line_that_leaves_out_what_is_not() -> None:
    assert Report().line() == "0 readings read; 0 sent and answered in 0 batches"
    report = Report(10, 8, 2, 1, Counter({"blank": 2, "future": 1}), 65.4)
    assert report.line() == (
        "10 readings read; 8 sent and answered in 2 batches; refused: blank 2, future 1; 1 batches waiting, 1m 5s behind"
    )
