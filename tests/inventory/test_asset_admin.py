"""Editing hosts and GPUs in the admin: forms, actions on many, the history, and who may do what."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import NoReverseMatch, reverse

from inventory.models import GPU, Host
from inventory.roles import OPERATORS, VIEWERS
from inventory.tags import MOST_TAGS
from tests.inventory.building import UTIL, block, fleet, gpu, save
from tests.inventory.test_admin import GPUS, HOSTS, PAGES, cells, page

pytestmark = pytest.mark.django_db

HISTORY = "/admin/admin/logentry/"
NOTED = {"asset_state": "active", "owner": "", "tags": "", "notes": ""}


def login(group: str | None = None) -> Client:
    """A browser of a person in this group, or of a superuser."""
    if group is None:
        person = User.objects.create_superuser("root")
    else:
        person = User.objects.create_user(group.lower(), is_staff=True)
        person.groups.add(Group.objects.get(name=group))
    client = Client()
    client.force_login(person)
    return client


@pytest.fixture
def staff() -> Client:
    return login()


def shown_in(client: Client, url: str, query: str = "") -> list[str]:
    html = page(client, f"{url}?{query}")
    return [row["name" if url == HOSTS else "short_id"] for row in cells(html)] if "<tbody>" in html else []


def act(client: Client, url: str, action: str, keys: list[Any], value: str | None = None, **more: str) -> str:
    """The page after an action: the asking one, or with a value the list."""
    data: dict[str, Any] = {"action": action, "_selected_action": keys, "select_across": "0", **more}
    if value is not None:
        data |= {"apply": "1", "value": value}
    return unescape(client.post(url, data, follow=True).content.decode())


def history() -> list[str]:
    return [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")]


def test_a_persons_notes_are_kept_with_what_they_were_before(staff: Client) -> None:
    save(block(gpu(), 0, {UTIL: 1.0}))
    host = Host.objects.get()
    url = f"{HOSTS}{host.pk}/change/"
    answer = staff.post(
        url,
        {"asset_state": "maintenance", "owner": "ml", "tags": "rack: r1", "notes": "fan", "expected_gpus": "8"},
    )
    assert answer.status_code == 302
    host.refresh_from_db()
    assert (host.asset_state, host.owner, host.tags, host.notes, host.expected_gpus) == (
        "maintenance",
        "ml",
        {"rack": "r1"},
        "fan",
        8,
    )
    staff.post(url, {**NOTED, "owner": "infra", "tags": "rack: r2\nrow: 7", "expected_gpus": ""})
    first, second = history()
    for text in ("state: active → in maintenance", "owner: – → ml", "tag rack: – → r1", "expected GPUs: – → 8"):
        assert text in first
    for text in ("owner: ml → infra", "tag rack: r1 → r2, tag row: – → 7", "notes: fan → –", "expected GPUs: 8 → –"):
        assert text in second
    shown = unescape(page(staff, f"{HOSTS}{host.pk}/history/"))
    assert second in shown
    assert "root" in shown


def test_a_form_saved_unchanged_is_no_change(staff: Client) -> None:
    save(block(gpu(), 0, {UTIL: 1.0}))
    assert staff.post(f"{GPUS}GPU-a/change/", {**NOTED, "tags": " \n"}).status_code == 302
    assert history() == []
    assert "Nobody has changed anything" in page(staff, f"{GPUS}GPU-a/history/")


def test_what_collectors_write_stays_theirs(staff: Client) -> None:
    """A form holds what was true when it was read. Collectors write meanwhile."""
    save(block(gpu(pod="old"), 0, {UTIL: 1.0}))
    original = GPU.objects.get()
    save(block(gpu(pod="new"), 60, {UTIL: 2.0}))
    from django.contrib import admin

    gpu_admin = admin.site._registry[GPU]
    form = gpu_admin.get_form(rf_request(staff), original, change=True)({**NOTED, "owner": "ml"}, instance=original)
    assert form.is_valid()
    gpu_admin.save_model(rf_request(staff), form.save(commit=False), form, change=True)
    now = GPU.objects.get()
    assert (now.owner, now.pod) == ("ml", "new")
    staff.post(f"{GPUS}GPU-a/change/", {**NOTED, "pod": "mine", "host": "", "id": "GPU-z"})
    now = GPU.objects.get()
    assert (now.pk, now.pod, now.host) == ("GPU-a", "new", Host.objects.get())


def rf_request(client: Client) -> Any:
    """A request of this person."""
    request = client.get(GPUS).wsgi_request
    request.user = User.objects.get()
    return request


def test_collectors_leave_notes_alone_and_make_no_history() -> None:
    save(block(gpu(), 0, {UTIL: 1.0}))
    GPU.objects.update(owner="ml", tags={"rack": "r1"}, asset_state="retired", notes="n")
    Host.objects.update(owner="ml", expected_gpus=4)
    save(block(gpu(pod="next", labels={"a": "b"}), 60, {UTIL: 2.0}))
    now, host = GPU.objects.get(), Host.objects.get()
    assert (now.owner, now.tags, now.asset_state, now.notes, now.pod) == ("ml", {"rack": "r1"}, "retired", "n", "next")
    assert (host.owner, host.expected_gpus) == ("ml", 4)
    assert history() == []


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"tags": "rack: r1\nrow"}, "Line 2, “row”: the colon is missing"),
        ({"tags": "1: x"}, "begins with a letter"),
        ({"expected_gpus": "-1"}, "greater than or equal to 0"),
        ({"expected_gpus": "2000"}, "less than or equal to 1024"),
        ({"owner": "o" * 256}, "at most 255"),
        ({"owner": "ml\x1b[31m"}, "printable characters only"),
        ({"owner": "ml\u202e"}, "printable characters only"),
        ({"notes": "n" * 4001}, "at most 4000"),
        ({"asset_state": "broken"}, "not one of the available choices"),
    ],
)
def test_errors_say_what_is_allowed_and_keep_what_was_typed(
    staff: Client, fields: dict[str, str], problem: str
) -> None:
    save(block(gpu(), 0, {UTIL: 1.0}))
    key = Host.objects.get().pk
    answer = staff.post(f"{HOSTS}{key}/change/", {**NOTED, **fields})
    html = unescape(answer.content.decode())
    assert answer.status_code == 200
    assert problem in html
    assert fields.get("tags", "") in html
    assert history() == []


@pytest.mark.parametrize(("url", "key_of"), [(HOSTS, "pk"), (GPUS, "pk")])
def test_states_of_many_are_set_after_a_page_that_lists_what_will_change(staff: Client, url: str, key_of: str) -> None:
    save(fleet(16))
    model = {HOSTS: Host, GPUS: GPU}[url]
    rows = list(model._default_manager.order_by("pk"))[:2]
    keys = [getattr(row, key_of) for row in rows]
    model._default_manager.filter(pk=keys[0]).update(asset_state="maintenance")
    asking = act(staff, url, "set_maintenance", keys)
    assert "1 of 2 selected will change" in asking
    assert f'<th scope="row">{rows[1]}</th><td>state: active → in maintenance' in asking
    assert f'<th scope="row">{rows[0]}</th>' not in asking
    assert ("counts for the GPUs in it" in asking) == (url == HOSTS)
    assert model._default_manager.filter(asset_state="maintenance").count() == 1
    assert "Changed 1 of 2" in act(staff, url, "set_maintenance", keys, "")
    assert "Changed 2 of 2" in act(staff, url, "retire", keys, "")
    assert "Changed 2 of 2" in act(staff, url, "set_active", keys, "")
    assert "Nothing would change" in act(staff, url, "set_active", keys)
    assert history() == [
        "Changed state: active → in maintenance.",
        *["Changed state: in maintenance → retired."] * 2,
        *["Changed state: retired → active."] * 2,
    ]


def test_owner_and_tags_of_many(staff: Client) -> None:
    save(fleet(16))
    first, second = Host.objects.all()
    keys = [first.pk, second.pk]
    assert "Owner now" in act(staff, HOSTS, "set_owner", keys)
    assert "Changed 2 of 2 hosts" in act(staff, HOSTS, "set_owner", keys, "ml")
    assert "printable characters only" in act(staff, HOSTS, "set_owner", keys, "two\nlines")
    assert "Changed 1 of 1 host" in act(staff, HOSTS, "set_owner", keys[:1], "")
    assert "None of the selected have tags" in act(staff, HOSTS, "remove_tag", keys)
    assert "colon is missing" in act(staff, HOSTS, "add_tag", keys, "rack")
    assert "Changed 2 of 2" in act(staff, HOSTS, "add_tag", keys, "rack: r1")
    assert "Changed 1 of 1" in act(staff, HOSTS, "add_tag", keys[:1], "rack: r2")
    assert "Changed 0 of 1" in act(staff, HOSTS, "add_tag", keys[:1], "rack: r2")
    assert [host.tags for host in Host.objects.all()] == [{"rack": "r2"}, {"rack": "r1"}]
    asking = act(staff, HOSTS, "remove_tag", keys)
    assert '<option value="rack">rack</option>' in asking
    assert "rack: r2</td>" in asking
    assert "not one of the available choices" in act(staff, HOSTS, "remove_tag", keys, "row")
    assert "Changed 2 of 2" in act(staff, HOSTS, "remove_tag", keys, "rack")
    assert [(host.owner, host.tags) for host in Host.objects.all()] == [("", {}), ("ml", {})]
    assert history()[-1] == "Changed tag rack: r1 → –."
    assert "Changed tag rack: r1 → r2." in history()


def test_no_row_gets_more_tags_than_allowed(staff: Client) -> None:
    save(fleet(2))
    GPU.objects.filter(pk="GPU-0001").update(tags={f"t{n}": "x" for n in range(MOST_TAGS)})
    assert f"{MOST_TAGS} tags already" in act(staff, GPUS, "add_tag", ["GPU-0000", "GPU-0001"], "rack: r1")
    assert GPU.objects.get(pk="GPU-0000").tags == {}
    assert history() == []
    assert "Changed 2 of 2" in act(staff, GPUS, "add_tag", ["GPU-0000", "GPU-0001"], "t0: y")


def test_a_whole_list_of_thousands_is_changed_at_once(staff: Client) -> None:
    save(fleet(2400))
    url = f"{GPUS}?host__id__exact={Host.objects.get(name='host-003').pk}"
    asking = act(staff, GPUS, "set_owner", ["GPU-0000"], select_across="1")
    assert "… and 2200 more" in asking
    assert asking.count('name="_selected_action"') == 1
    with CaptureQueriesContext(connection) as queries:
        answer = staff.post(
            GPUS,
            {
                "action": "set_owner",
                "_selected_action": ["GPU-0000"],
                "select_across": "1",
                "apply": "1",
                "value": "ml",
            },
        )
    assert answer.status_code == 302
    assert GPU.objects.filter(owner="ml").count() == LogEntry.objects.count() == 2400
    assert len(queries) < 60
    act(staff, url, "set_owner", ["GPU-0024"], "", select_across="1")
    assert GPU.objects.filter(owner="ml").count() == 2392


@pytest.mark.parametrize("url", [HOSTS, GPUS])
def test_lists_filter_and_search_by_what_people_noted(staff: Client, url: str) -> None:
    save(fleet(16))
    model = {HOSTS: Host, GPUS: GPU}[url]
    chosen = model._default_manager.order_by("pk")[1]
    model._default_manager.filter(pk=chosen.pk).update(
        owner="ml-team", tags={"rack": "R 12", "a__exact": "1"}, asset_state="retired"
    )
    for query in (
        "asset_state__exact=retired",
        "owner=ml-team",
        "tag=rack:+R+12",
        "q=ML-team",
        "q=r+12",
    ):
        assert shown_in(staff, url, query) == [str(chosen)], query
    assert shown_in(staff, url, "tag=a__exact:+1") == [str(chosen)]  # the name is not taken for a lookup
    for query in ("owner=other", "tag=rack:+other", "tag=nonsense", "tag=other:+R+12"):
        assert shown_in(staff, url, query) == [], query
    html = page(staff, url)
    assert "?tag=rack%3A+R+12" in html
    assert "?owner=ml-team" in html


def test_hosts_are_filtered_by_model_and_gpus_by_host(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    save(fleet(8), block(gpu("GPU-z", hostname="other", model_name="A100"), 0, {UTIL: 1.0}))
    assert shown_in(staff, HOSTS, "model=A100") == ["other"]
    key = Host.objects.get(name="other").pk
    assert shown_in(staff, GPUS, f"host__id__exact={key}") == ["GPU-z"]
    assert shown_in(staff, GPUS, "host__id__exact=nonsense") == []
    assert "By host" in page(staff, GPUS)
    monkeypatch.setattr("inventory.admin.MOST_HOSTS_LISTED", 1)
    assert "By host" not in page(staff, GPUS)
    assert shown_in(staff, GPUS, f"host__id__exact={key}") == ["GPU-z"]


def test_pages_of_hosts_gpus_and_placements_lead_to_each_other(staff: Client) -> None:
    save(block(gpu(pod="train"), 0, {UTIL: 1.0}))
    save(block(gpu("GPU-b"), 60, {UTIL: 1.0}), block(gpu(hostname="host-2", pod="train"), 60, {UTIL: 1.0}))
    one, two = (f"{HOSTS}{host.pk}/change/" for host in Host.objects.all())
    assert f'href="{GPUS}GPU-b/change/"' in page(staff, one)
    assert f'href="{GPUS}GPU-a/change/"' in page(staff, one)  # it has left
    of_gpu = page(staff, f"{GPUS}GPU-a/change/")
    assert f'href="{one}"' in of_gpu
    assert f'href="{two}"' in of_gpu
    link = re.search(r'href="(/admin/inventory/placement/[^"]*)"', page(staff, two))
    assert link is not None
    placements = page(staff, unescape(link[1]))
    assert f'href="{two}"' in placements
    assert f'href="{GPUS}GPU-a/change/"' in placements


@pytest.mark.parametrize(("group", "may_edit"), [(VIEWERS, False), (OPERATORS, True)], ids=["viewers", "operators"])
def test_a_role_sees_everything_and_does_what_it_may(group: str, may_edit: bool) -> None:
    save(block(gpu(pod="train"), 0, {UTIL: 1.0}))
    GPU.objects.update(tags={"rack": "r1"})
    client = login(group)
    key = Host.objects.get().pk
    for url in (*PAGES, HISTORY):
        html = page(client, url)
        assert ('name="action"' in html) == (may_edit and url in {GPUS, HOSTS}), url
        assert "/add/" not in html
        assert "delete" not in html
    for url in (f"{GPUS}GPU-a/change/", f"{HOSTS}{key}/change/"):
        html = page(client, url)
        assert ('name="_save"' in html) == may_edit
        assert "deletelink" not in html
        assert client.post(url, {**NOTED, "owner": "me"}).status_code == (302 if may_edit else 403)
        assert client.post(url.replace("change", "delete"), {"post": "yes"}).status_code == 403
    for url, keys in ((GPUS, ["GPU-a"]), (HOSTS, [key])):
        act(client, url, "set_owner", keys, "mine")
        act(client, url, "retire", keys, "")
        act(client, url, "delete_selected", keys, post="yes")
    expected = ("mine", "retired") if may_edit else ("", "active")
    assert [(row.owner, row.asset_state) for row in (GPU.objects.get(), Host.objects.get())] == [expected] * 2
    assert client.get("/admin/api/apitoken/").status_code == 403
    assert client.get("/admin/auth/user/").status_code == 403


def test_who_may_only_look_sees_tags_as_tags() -> None:
    save(block(gpu(), 0, {UTIL: 1.0}))
    GPU.objects.update(tags={"rack": "<r1>"}, owner="ml")
    html = page(login(VIEWERS), f"{GPUS}GPU-a/change/")
    assert '<span class="tag">rack: &lt;r1&gt;</span>' in html
    assert "<textarea" not in html


def test_a_migration_makes_the_roles_again_and_leaves_what_people_added() -> None:
    Group.objects.get(name=VIEWERS).delete()
    more = Permission.objects.get(codename="delete_gpu")
    Group.objects.get(name=OPERATORS).permissions.add(more)
    call_command("migrate", verbosity=0)
    viewers = Group.objects.get(name=VIEWERS)
    assert {name.split("_")[0] for name in viewers.permissions.values_list("codename", flat=True)} == {"view"}
    assert not viewers.permissions.filter(content_type__app_label__in=("api", "auth")).exists()
    assert more in Group.objects.get(name=OPERATORS).permissions.all()


def test_the_history_also_tells_of_what_is_gone(staff: Client) -> None:
    save(fleet(2))
    act(staff, GPUS, "set_owner", ["GPU-0000"], "ml")
    act(staff, GPUS, "delete_selected", ["GPU-0000"], post="yes")
    User.objects.create_user("other")
    rows = cells(page(staff, HISTORY))
    assert [(row["user"], row["what"], row["change"]) for row in rows] == [
        ("root", "GPU-0000", "Removed."),
        ("root", "GPU-0000", "Changed owner: – → ml."),
    ]
    assert len(cells(page(staff, f"{HISTORY}?q=GPU-0000"))) == 2
    assert "?user__id__exact=" not in page(staff, HISTORY)  # one person alone is no choice


def test_the_history_is_only_of_the_inventory_and_nobody_changes_it(staff: Client) -> None:
    save(fleet(1))
    staff.post("/admin/auth/group/add/", {"name": "people"})
    act(staff, GPUS, "set_owner", ["GPU-0000"], "ml")
    [row] = cells(page(staff, HISTORY))
    assert row["what"] == "GPU-0000"
    key = LogEntry.objects.get(object_repr="GPU-0000").pk
    assert staff.post(f"{HISTORY}{key}/delete/", {"post": "yes"}).status_code == 403
    assert staff.post(f"{HISTORY}{key}/change/", {"object_repr": "x"}).status_code == 403


def test_who_has_changed_something_cannot_be_deleted(staff: Client) -> None:
    save(fleet(1))
    operator = login(OPERATORS)
    act(operator, GPUS, "set_owner", ["GPU-0000"], "ml")
    person = User.objects.get(username="operators")
    idle = User.objects.create_user("idle")
    for url in (f"/admin/auth/user/{person.pk}/delete/", f"/admin/auth/user/{idle.pk}/delete/"):
        staff.post(url, {"post": "yes"})
    assert set(User.objects.values_list("username", flat=True)) == {"root", "operators"}
    assert "the history of what operators changed" in page(staff, f"/admin/auth/user/{person.pk}/delete/")


def has_page(name: str, arg: str) -> bool:
    try:
        reverse(name, args=(arg,))
    except NoReverseMatch:
        return False
    return True


@pytest.mark.parametrize(("url", "name"), [(HOSTS, "dashboard:host"), (GPUS, "dashboard:gpu")])
def test_pages_lead_to_the_dashboard_where_it_has_such_a_page(staff: Client, url: str, name: str) -> None:
    save(block(gpu(), 0, {UTIL: 1.0}))
    key, arg = (Host.objects.get().pk, "host-1") if url == HOSTS else ("GPU-a", "GPU-a")
    html = page(staff, f"{url}{key}/change/")
    if has_page(name, arg):
        assert f'<a href="{reverse(name, args=(arg,))}">Dashboard</a>' in html
    else:
        assert ">Dashboard</a>" not in html


@pytest.mark.parametrize("name", ["host", "gpu"])
def test_the_cost_of_a_page_does_not_depend_on_the_fleet(staff: Client, name: str) -> None:
    counts = []
    for count in (8, 80):
        save(fleet(count, pod="train"))
        GPU.objects.update(tags={"rack": "r1"}, owner="ml")
        Host.objects.update(tags={"rack": "r1"}, owner="ml")
        key = Host.objects.order_by("pk")[0].pk if name == "host" else "GPU-0000"
        with CaptureQueriesContext(connection) as queries:
            page(staff, f"/admin/inventory/{name}/{key}/change/")
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 15
