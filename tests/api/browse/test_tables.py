"""An answer as tables."""

from __future__ import annotations

from api.browse.tables import Cell, Table, tables_of, words


def texts(cells: list[Cell]) -> list[str]:
    return [cell.text for cell in cells]


def test_ids_and_times_are_cut_in_rows_and_whole_in_facts() -> None:
    gpu = "GPU-5fd4f087-86f3-7a43-b711-4771313afc50"
    time = "2025-07-18T20:42:34.123456789Z"
    facts, rows = tables_of({"uuid": gpu, "time": time, "list": [{"id": f"{gpu}:3", "seen": time, "timestamp": time}]})
    assert [cell.text for _, cell in facts.rows] == [gpu, time]
    assert [(cell.text, cell.whole) for cell in rows.rows[0]] == [
        ("GPU-5fd4f087:3", f"{gpu}:3"),
        ("2025-07-18 20:42:34", time),
        ("2025-07-18 20:42:34.123", time),
    ]


def test_rows_are_a_table_whose_first_column_leads_to_the_row_s_own_page() -> None:
    row = {"id": "G:1", "uuid": "G", "mig_id": "1", "hostname": "a/b", "pod": "", "first": 1.0, "url": "http://x/G"}
    assert tables_of({"data": ["G:1"], "count": 1, "gpus": [row], "next": None, "previous": None}) == [
        Table(
            "",
            [Cell("Id"), Cell("MIG id"), Cell("Hostname"), Cell("First", style="number")],
            [
                [
                    Cell("G:1", "http://x/G", "short"),
                    Cell("1", style="short"),
                    Cell("a/b", "/api/v1/hosts/a%2Fb", "short"),
                    Cell("1", style="number"),
                ]
            ],
        )
    ]


def test_plain_values_come_first_as_facts() -> None:
    answer = {
        "name": "host-a",
        "stale": 0,
        "power": None,
        "ok": True,
        "host_url": "https://x/a",
        "model_name": "https://evil",
        "gpus": [{"id": "a", "value": 1}],
        "latest": {"UTIL": {"value": 0.5}},
        "labels": {"host_url": "https://evil"},
        "range": [0.0, None],
    }
    facts, gpus, latest, labels = tables_of(answer)
    assert facts.facts
    assert [[cell.text for cell in row] for row in facts.rows] == [
        ["Name", "host-a"],
        ["Stale", "0"],
        ["Power", "–"],
        ["Ok", "yes"],
        ["Host", "/a"],
        ["Model name", "https://evil"],
        ["Range", "0.0, –"],
    ]
    assert facts.rows[4][1].url == "https://x/a"
    assert (gpus.title, texts(gpus.heads)) == ("GPUs", ["Id", "Value"])
    assert (latest.title, texts(latest.heads), texts(latest.rows[0])) == (
        "Latest",
        ["Name", "Value"],
        ["UTIL", "0.5"],
    )
    assert (labels.title, labels.facts, labels.rows[0][0]) == ("Labels", True, Cell("host_url"))
    assert [facts.rows[5][1].url, labels.rows[0][1].url] == ["", ""]


def test_names_are_a_column() -> None:
    assert tables_of({"data": ["A", "B"], "count": 2}) == [
        Table("", [Cell("Name")], [[Cell("A", style="short")], [Cell("B", style="short")]])
    ]


def test_windows_are_a_row_for_each_time() -> None:
    series = [
        {"group": {"host": "a"}, "points": [["t1", 1.0], ["t2", None]]},
        {"group": {"host": "b"}, "points": [["t1", 2.5]]},
    ]
    (table,) = tables_of({"data": series})
    assert texts(table.heads) == ["Time", "a", "b"]
    assert [[cell.text for cell in row] for row in table.rows] == [["t1", "1", "2.5"], ["t2", "–", ""]]
    assert tables_of({"data": [{"group": {}, "points": [["t", 1]]}]})[0].heads[1].text == "all"


def test_what_is_empty_and_what_is_none_of_it() -> None:
    assert tables_of([1]) == []
    assert tables_of({"error": "x", "message": "y"}) == []
    assert [table.rows for table in tables_of({"data": [], "count": 0})] == [[]]
    assert [len(table.rows) for table in tables_of({"data": [[1, "a"]]})] == [1]
    assert tables_of({"a": {"b": {}}})[0].rows == [[Cell("b", style="short")]]
    assert tables_of({"a": "", "labels": {}, "url": "https://x"}) == []
    assert tables_of({"a": {"b_c": 1, "d": None}})[0].rows == [[Cell("B c"), Cell("1", style="number")]]
    assert tables_of({"a": object})[0].rows[0][1].text == str(object)
    assert tables_of({"a": {"b": {"c": 1}, "d": 2}})[0].rows[0][1].text == "c: 1"


def test_words() -> None:
    assert [words(name) for name in ("gpu_id", "mig_id", "memory_used_mib", "DCGM_FI_X", "")] == [
        "GPU id",
        "MIG id",
        "Memory used MiB",
        "DCGM_FI_X",
        "",
    ]
