"""inventory.admin through a real login: what pages show, what they cannot do and what they cost. Editing: test_asset_admin."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html import escape, unescape

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from inventory.models import GPU, CollectorStatus, Host, Placement
from inventory.status import add_counts
from tests.inventory.building import FREE, POWER, TEMP, USED, UTIL, block, fleet, gpu, save

pytestmark = pytest.mark.django_db

GPUS = "/admin/inventory/gpu/"
HOSTS = "/admin/inventory/host/"
PLACEMENTS = "/admin/inventory/placement/"
COLLECTORS = "/admin/inventory/collectorstatus/"
PAGES = [GPUS, HOSTS, PLACEMENTS, COLLECTORS]


@pytest.fixture
def admin_pages(settings: Settings) -> Client:
    """A browser that has logged in by the form, as a superuser."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # a slow one helps no test
    settings.LOGIN_RATE = None
    User.objects.create_superuser("operator", password="correct horse battery")
    client = Client()
    answer = client.post("/admin/login/", {"username": "operator", "password": "correct horse battery", "next": GPUS})
    assert answer.status_code == 302
    assert answer.headers["Location"] == GPUS
    return client


def page(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, f"{path}: {answer.status_code}"
    return answer.content.decode()


def cells(html: str) -> list[dict[str, str]]:
    """The rows of a changelist: column name to text."""
    body = html.split("<tbody>")[1].split("</tbody>")[0]
    rows = []
    for row in body.split("<tr>")[1:]:
        found = re.findall(r'<t[dh] class="field-([a-z_]+)[^"]*">(.*?)</t[dh]>', row, re.DOTALL)
        rows.append({name: re.sub(r"<[^>]*>", "", text).strip() for name, text in found})
    return rows


def listed(client: Client, query: str = "") -> list[str]:
    html = page(client, f"{GPUS}?{query}")
    return [row["short_id"] for row in cells(html)] if "<tbody>" in html else []


def test_nobody_sees_it_without_logging_in() -> None:
    for path in PAGES:
        answer = Client().get(path)
        assert answer.status_code == 302
        assert answer.headers["Location"].startswith("/admin/login/")


def test_the_list_shows_the_newest_readings_with_units(admin_pages: Client) -> None:
    save(block(gpu(pod="train-0"), 0, {UTIL: 88.0, POWER: 1412.25, TEMP: 61.0, USED: 5120.0, FREE: 75887.0}))
    [row] = cells(page(admin_pages, GPUS))
    assert row["short_id"] == "GPU-a"
    assert row["host"] == "host-1"
    assert row["state"] == "reporting"
    assert row["utilisation"] == "88 %"
    assert row["memory"] == "5,120 / 81,007 MiB"
    assert row["temperature"] == "61 °C"
    assert row["power"] == "1,412.2 W"
    assert row["pod"] == "train-0"


def test_unknown_is_a_dash_and_zero_is_zero(admin_pages: Client) -> None:
    save(block(gpu(), 0, {UTIL: 0.0}))
    [row] = cells(page(admin_pages, GPUS))
    assert (row["utilisation"], row["memory"], row["temperature"], row["power"]) == ("0 %", "–", "–", "–")


def test_memory_totals(admin_pages: Client) -> None:
    save(
        block(gpu("GPU-a"), 0, {USED: 5.0}),
        block(gpu("GPU-b", gpu_id=1), 0, {USED: 5.0, FREE: 10.0, "DCGM_FI_DEV_FB_RESERVED": 3.0}),
        block(gpu("GPU-c", gpu_id=2), 0, {USED: 5.0, FREE: 10.0, "DCGM_FI_DEV_FB_TOTAL": 99.0}),
        block(gpu("GPU-d", gpu_id=3), 0, {"DCGM_FI_DEV_FB_TOTAL": 99.0}),
    )
    shown = [row["memory"] for row in cells(page(admin_pages, GPUS))]
    assert shown == ["5 / – MiB", "5 / 18 MiB", "5 / 99 MiB", "– / 99 MiB"]


def test_search_and_filters(admin_pages: Client) -> None:
    save(
        block(gpu("GPU-a", pod="train-0"), 400, {UTIL: 1.0}),
        block(
            gpu("GPU-b", hostname="host-2", model_name="A100", labels={"DCGM_FI_DRIVER_VERSION": "550"}), 0, {UTIL: 2.0}
        ),
        block(gpu("GPU-c", hostname="host-3", mig_id="1", mig_profile="1g.10gb"), 400, {UTIL: 3.0}),
    )
    assert listed(admin_pages) == ["GPU-a", "GPU-b", "GPU-c", "GPU-c:1"]
    assert listed(admin_pages, "q=gpu-b") == ["GPU-b"]
    assert listed(admin_pages, "q=host-1") == ["GPU-a"]
    assert listed(admin_pages, "q=train") == ["GPU-a"]
    assert listed(admin_pages, "q=nothing") == []
    assert listed(admin_pages, "state=stale") == ["GPU-b"]
    assert listed(admin_pages, "state=reporting") == ["GPU-a", "GPU-c", "GPU-c:1"]
    assert listed(admin_pages, "kind=physical") == ["GPU-a", "GPU-b", "GPU-c"]
    assert listed(admin_pages, "kind=instance") == ["GPU-c:1"]
    assert listed(admin_pages, "model_name=A100") == ["GPU-b"]
    assert listed(admin_pages, "driver_version=550") == ["GPU-b"]
    host = Host.objects.get(name="host-2")
    assert listed(admin_pages, f"host__id__exact={host.pk}") == ["GPU-b"]
    assert listed(admin_pages, f"host__id__exact={'9' * 5000}") == []
    assert "By state" in page(admin_pages, GPUS)


def test_every_column_sorts_both_ways(admin_pages: Client) -> None:
    save(fleet(3))
    for column in range(12):
        for sign in ("", "-"):
            assert sorted(listed(admin_pages, f"o={sign}{column}")) == ["GPU-0000", "GPU-0001", "GPU-0002"]


def test_an_empty_inventory_has_its_pages(admin_pages: Client) -> None:
    for path in PAGES:
        page(admin_pages, path)
    page(admin_pages, f"{GPUS}?state=stale")
    Host.objects.create(name="bare", first_seen=datetime.now(UTC), last_seen=datetime.now(UTC))
    [row] = cells(page(admin_pages, HOSTS))
    assert (row["gpu_count"], row["reporting"], row["stale"]) == ("0", "0", "0")


def test_a_gpus_page_tells_all_and_offers_nothing_of_the_collectors_to_change(admin_pages: Client) -> None:
    save(block(gpu(pod="train-0", namespace="ml", labels={"note": "<script>"}), 0, {UTIL: 12.5, "ODD": 12345678.0}))
    save(block(gpu(hostname="host-2", gpu_id=4, pod="train-1"), 60, {UTIL: 13.5}))
    html = page(admin_pages, f"{GPUS}GPU-a/change/")
    for text in (UTIL, "13.5", "12,345,678", "2025-07-18T20:43:34Z", "host-1", "host-2", "train-0", "train-1"):
        assert text in html
    assert "&lt;script&gt;" not in html  # the label is not among the newest description
    assert "All placements" in html
    fields = set(re.findall(r'<(?:input|select|textarea)[^>]* name="([^"]+)"', html))
    assert {name for name in fields if not name.startswith(("_", "csrf"))} == {"asset_state", "owner", "tags", "notes"}


def test_what_readings_say_is_escaped(admin_pages: Client) -> None:
    evil = "<script>alert(1)</script>"
    save(block(gpu(pod=evil, hostname=evil, labels={"note": evil}), 0, {evil: 1.0}))
    for path in (GPUS, f"{GPUS}GPU-a/change/", HOSTS, PLACEMENTS):
        html = page(admin_pages, path)
        assert evil not in html
        assert "&lt;script&gt;" in html


def test_a_board_links_its_instances_and_they_link_it(admin_pages: Client) -> None:
    save(*(block(gpu(mig_id=str(n), mig_profile="1g.10gb"), 0, {UTIL: 1.0}) for n in range(2)))
    board = page(admin_pages, f"{GPUS}GPU-a/change/")
    assert "GPU-a:0</a>" in board
    assert "GPU-a:1</a>" in board
    instance = page(admin_pages, f"{GPUS}GPU-a_3A0/change/")
    assert "GPU-a</a>" in instance
    assert "GPU-a:1</a>" not in instance


def test_history_on_a_gpus_page_is_bounded_and_the_rest_is_a_link_away(admin_pages: Client) -> None:
    for number in range(50):
        save(block(gpu(pod=f"pod-{number:02d}"), number, {UTIL: 1.0}))
    html = page(admin_pages, f"{GPUS}GPU-a/change/")
    assert "pod-49" in html
    assert "pod-30" in html
    assert "pod-29" not in html
    link = re.search(rf'href="({PLACEMENTS}[^"]*)"', html)
    assert link is not None
    assert len(cells(page(admin_pages, link[1]))) == 50


@pytest.mark.parametrize("path", [PLACEMENTS, COLLECTORS])
def test_nothing_can_be_added_or_changed(admin_pages: Client, path: str) -> None:
    save(block(gpu(pod="train"), 0, {UTIL: 1.0}))
    add_counts("c1", started=datetime.now(UTC), messages=1, readings_stored=1, refused={}, committed_offset=0)
    models = {PLACEMENTS: Placement, COLLECTORS: CollectorStatus}
    key = models[path]._default_manager.get().pk
    assert admin_pages.get(f"{path}add/").status_code == 403
    assert admin_pages.post(f"{path}{key}/change/", {"name": "other", "pod": "other"}).status_code == 403
    assert GPU.objects.get().pod == "train"


@pytest.mark.parametrize("path", [PLACEMENTS, COLLECTORS])
def test_history_and_counters_cannot_be_deleted(admin_pages: Client, path: str) -> None:
    save(block(gpu(pod="train"), 0, {UTIL: 1.0}))
    add_counts("c1", started=datetime.now(UTC), messages=1, readings_stored=1, refused={}, committed_offset=0)
    models = {PLACEMENTS: Placement, COLLECTORS: CollectorStatus}
    key = models[path]._default_manager.get().pk
    assert admin_pages.get(f"{path}{key}/delete/").status_code == 403
    assert admin_pages.post(f"{path}{key}/delete/", {"post": "yes"}).status_code == 403
    admin_pages.post(path, {"action": "delete_selected", "_selected_action": [str(key)], "post": "yes"})
    assert "delete_selected" not in page(admin_pages, path)
    assert all(model._default_manager.count() == 1 for model in models.values())


def test_hosts_count_physical_gpus_by_state(admin_pages: Client) -> None:
    save(
        block(gpu("GPU-a"), 0, {UTIL: 1.0}),
        block(gpu("GPU-b", gpu_id=1), 400, {UTIL: 1.0}),
        *(block(gpu("GPU-c", gpu_id=2, mig_id=str(n)), 400, {UTIL: 1.0}) for n in range(3)),
    )
    html = page(admin_pages, HOSTS)
    [row] = cells(html)
    assert (row["name"], row["gpu_count"], row["reporting"], row["stale"]) == ("host-1", "3", "2", "1")
    host = Host.objects.get()
    assert listed(admin_pages, f"host__id__exact={host.pk}&kind=physical") == ["GPU-a", "GPU-b", "GPU-c"]
    assert f"host__id__exact={host.pk}&amp;kind=physical" in html
    page(admin_pages, f"{HOSTS}{host.pk}/change/")


def test_placements_can_be_searched_and_filtered(admin_pages: Client) -> None:
    save(block(gpu(pod="train-0", namespace="ml"), 0, {UTIL: 1.0}))
    save(block(gpu(pod="train-1", namespace="ml"), 60, {UTIL: 1.0}))
    assert [row["pod"] for row in cells(page(admin_pages, PLACEMENTS))] == ["train-1", "train-0"]
    assert [row["pod"] for row in cells(page(admin_pages, f"{PLACEMENTS}?ended__isempty=1"))] == ["train-1"]
    [found] = cells(page(admin_pages, f"{PLACEMENTS}?q=train-0"))
    assert (found["namespace"], found["gpu_page"], found["host"]) == ("ml", "GPU-a", "host-1")
    page(admin_pages, f"{PLACEMENTS}{Placement.objects.filter(pod='train-0').get().pk}/change/")


def test_collectors_show_what_they_refused(admin_pages: Client) -> None:
    add_counts(
        "c1",
        started=datetime.now(UTC),
        messages=3,
        readings_stored=9,
        refused={"blank": 2, "future": 5},
        committed_offset=2,
    )
    [row] = cells(page(admin_pages, COLLECTORS))
    assert (row["collector_id"], row["readings_stored"], row["refused_sum"]) == ("c1", "9", "7")
    html = page(admin_pages, f"{COLLECTORS}c1/change/")
    assert "future" in html


# Session and user are two of them; a list then needs the newest reading, two counts, the rows and its filters' choices.
COSTS = {GPUS: 15, HOSTS: 11, PLACEMENTS: 6, COLLECTORS: 5}


@pytest.mark.parametrize("path", PAGES)
def test_a_list_costs_the_same_with_one_gpu_and_with_fifty(admin_pages: Client, path: str) -> None:
    counts = []
    for count in (1, 50):
        save(fleet(count, pod="train", namespace="ml"))
        for number in range(count):
            add_counts(
                f"c{number}", started=datetime.now(UTC), messages=1, readings_stored=1, refused={}, committed_offset=0
            )
        with CaptureQueriesContext(connection) as queries:
            page(admin_pages, path)
        counts.append(len(queries))
    assert counts == [COSTS[path]] * 2


def test_a_gpus_page_costs_the_same_with_a_short_and_a_long_history(admin_pages: Client) -> None:
    counts = []
    for pods in (range(1), range(1, 50)):
        for number in pods:
            save(block(gpu(pod=f"pod-{number}", gpu_id=number % 8), number, {UTIL: 1.0, f"M{number}": 1.0}))
        with CaptureQueriesContext(connection) as queries:
            page(admin_pages, f"{GPUS}GPU-a/change/")
        counts.append(len(queries))
    assert counts == [12, 12]


def test_the_list_shows_short_names_that_lead_to_the_whole_ones(admin_pages: Client) -> None:
    uuid = "GPU-5fd4f087-86f3-7a43-b711-4771313afc50"
    save(block(gpu(uuid, mig_id="3"), 0, {UTIL: 1.0}))
    assert listed(admin_pages) == ["GPU-5fd4f087", "GPU-5fd4f087:3"]
    html = page(admin_pages, GPUS)
    assert f'title="{uuid}:3"' in html
    assert f"{uuid}_3A3/change/" in html  # how the admin writes a colon in an address


def test_what_is_no_longer_there_is_removed_after_a_page_that_asks(admin_pages: Client) -> None:
    save(block(gpu(), 0, {UTIL: 1.0}), block(gpu(mig_id="3"), 0, {UTIL: 1.0}), block(gpu(uuid="GPU-b"), 0, {UTIL: 1.0}))
    chosen = {"action": "delete_selected", "_selected_action": ["GPU-a"]}
    asking = admin_pages.post(GPUS, chosen).content.decode()
    for text in (
        "Are you sure",
        "host-1 · 0 · GPU-a (last seen",
        "GPU-a:3",
        "Readings stay in the store",
        "reports again",
    ):
        assert text in asking
    assert "GPU-b" not in asking
    assert GPU.objects.count() == 3
    done = admin_pages.post(GPUS, {**chosen, "post": "yes"}, follow=True).content.decode()
    assert "Successfully deleted 1 GPU" in done
    assert [each.pk for each in GPU.objects.all()] == ["GPU-b"]


def test_a_host_goes_with_its_gpus_by_its_own_page_too(admin_pages: Client) -> None:
    save(block(gpu(), 0, {UTIL: 1.0}))
    save(block(gpu(uuid="GPU-b", hostname="host-2"), 0, {UTIL: 1.0}))
    key = Host.objects.get(name="host-1").pk
    assert f"{HOSTS}{key}/delete/" in page(admin_pages, f"{HOSTS}{key}/change/")
    assert "host-1 · 0 · GPU-a (last seen" in page(admin_pages, f"{HOSTS}{key}/delete/")
    assert admin_pages.post(f"{HOSTS}{key}/delete/", {"post": "yes"}).status_code == 302
    assert [str(host) for host in Host.objects.all()] == ["host-2"]
    assert [each.pk for each in GPU.objects.all()] == ["GPU-b"]
    admin_pages.post(f"{GPUS}GPU-b/delete/", {"post": "yes"})
    assert not GPU.objects.exists()


def test_a_long_list_of_what_goes_is_cut(admin_pages: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inventory.admin.MOST_REMOVED_SHOWN", 2)
    save(*(block(gpu(uuid=f"GPU-{number}"), 0, {UTIL: 1.0}) for number in range(5)))
    key = Host.objects.get().pk
    asking = page(admin_pages, f"{HOSTS}{key}/delete/")
    assert "… and 3 more" in asking


def test_who_may_only_look_cannot_remove(client: Client) -> None:
    save(block(gpu(), 0, {UTIL: 1.0}))
    viewer = User.objects.create_user("viewer", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_gpu"))
    client.force_login(viewer)
    assert "delete_selected" not in page(client, GPUS)
    assert client.post(f"{GPUS}GPU-a/delete/", {"post": "yes"}).status_code == 403
    client.post(GPUS, {"action": "delete_selected", "_selected_action": ["GPU-a"], "post": "yes"})
    assert GPU.objects.count() == 1


def test_a_gpu_that_took_anothers_slot_is_shown_there_and_on_the_others_page(admin_pages: Client) -> None:
    save(block(gpu(), 0, {UTIL: 1.0}), block(gpu(mig_id="3"), 0, {UTIL: 1.0}))
    assert "GPU-b" not in page(admin_pages, f"{GPUS}GPU-a/change/")
    save(block(gpu(uuid="GPU-b"), 60, {UTIL: 1.0}))
    assert f'href="{GPUS}GPU-a/change/"' in page(admin_pages, f"{GPUS}GPU-b/change/")
    assert f'href="{GPUS}GPU-b/change/"' in page(admin_pages, f"{GPUS}GPU-a/change/")
    save(block(gpu(uuid="GPU-c", gpu_id=None, hostname=""), 60, {UTIL: 1.0}))
    page(admin_pages, f"{GPUS}GPU-c/change/")


@pytest.mark.parametrize(
    "query",
    [
        "pod__regex=(a%2B)%2B%24", "pod__iregex=x", "model_name__icontains=x", "host__name__regex=x", "labels__driver__iregex=x",
        "latest__icontains=x", "id__startswith=G", "gpu__id__regex=x", f"q={'+'.join('abcdefghijklmnopqrstuvwxyz' * 2)}",
    ],
)  # fmt: skip
def test_costly_filters_and_searches_are_refused(admin_pages: Client, query: str) -> None:
    save(fleet(2))
    for path in (
        GPUS,
        HOSTS,
        PLACEMENTS,
        COLLECTORS,
        "/admin/auth/user/",
        "/admin/auth/group/",
        "/admin/api/apitoken/",
    ):
        if query.startswith("q=") and path == COLLECTORS:
            continue  # it has no search
        # A list that does not know the field leads to itself with an error.
        assert admin_pages.get(f"{path}?{query}").status_code in ({400} if path == GPUS else {302, 400}), path


@pytest.mark.parametrize(
    "query", ["model_name=x", "kind=physical", "state=stale", "host__id__exact=1", "q=a+b", "index__gte=2"]
)
def test_cheap_ones_are_not(admin_pages: Client, query: str) -> None:
    save(fleet(2))
    assert admin_pages.get(f"{GPUS}?{query}").status_code == 200


def test_links_to_a_gpu_of_any_name_lead_there(admin_pages: Client) -> None:
    name = "GPU-a/b?c=d&e#f%20_5F"
    save(block(gpu(name), 0, {UTIL: 1.0}), block(gpu(name, mig_id="1"), 0, {UTIL: 1.0}))
    (url,) = set(re.findall(r'href="([^"]*/gpu/[^"]*/change/[^"]*)"', page(admin_pages, f"{GPUS}?kind=physical")))
    shown = page(admin_pages, unescape(url))
    assert escape(name) in shown
    (instance,) = re.findall(r'href="(/admin/inventory/gpu/[^"]*_3A1/change/)"', shown)
    assert f"{escape(name)}:1" in page(admin_pages, instance)
