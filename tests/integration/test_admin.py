"""The pages in Django's admin, as Django's test client gets them."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection, connections
from django.test import Client, override_settings
from django.urls import resolve
from django.utils import timezone

import djcrf_pg
from djcrf_pg.admin import DIFFERENCES
from djcrf_pg.capture.install import install
from djcrf_pg.models import ShadowResult
from djcrf_pg.observer import shadowed
from tests.testapp.models import Document, Task, Unheard

pytestmark = pytest.mark.django_db(databases=["default", "second"])

OVERVIEW, LOG, TRIGGERS, STATE, SHADOW = (
    f"/admin/djcrf_pg/changelog/{page}" for page in ("", "log/", "triggers/", "state/", "shadow/")
)


@pytest.fixture
def user(django_user_model: Any) -> User:
    """Of the staff, and without permissions."""
    made: User = django_user_model.objects.create_user("operator", is_staff=True)
    return made


@pytest.fixture
def staff(user: User, client: Client) -> Client:
    """Logged in as that user."""
    client.force_login(user)
    return client


def allow(user: User, *names: str) -> None:
    """Give permissions of djcrf_pg's."""
    user.user_permissions.add(*Permission.objects.filter(content_type__app_label="djcrf_pg", codename__in=names))


def read(client: Client, url: str) -> str:
    """A page as text."""
    response = client.get(url)
    assert response.status_code == 200, (url, response.status_code)
    return response.content.decode()


def rows(html: str) -> list[str]:
    """The rows of the log on a page, without markup."""
    body = html.partition("<tbody>")[2].partition("</tbody>")[0]
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in body.split("</tr>")[:-1]]


def link(html: str, name: str) -> str:
    """Where a link of the pages leads."""
    (found,) = re.findall(rf'<a[^>]*href="(\?[^"]*)">{name}</a>', html)
    return LOG + found.replace("&amp;", "&")


class TestPermissions:
    """Who sees what."""

    def test_the_staff_sees_nothing(self, staff: Client):
        assert "change log" not in read(staff, "/admin/").lower()
        for url in (OVERVIEW, LOG, TRIGGERS, STATE, SHADOW):
            assert staff.get(url).status_code == 403, url

    def test_with_the_permission_all_pages_can_be_read_and_nothing_installed(self, staff: Client, user: User):
        allow(user, "view_changelog")
        assert f'href="{OVERVIEW}"' in read(staff, "/admin/")
        for url in (OVERVIEW, LOG, STATE, SHADOW):
            read(staff, url)
        assert "Install triggers" not in read(staff, TRIGGERS)
        assert staff.post(TRIGGERS, {"database": "default"}).status_code == 403

    def test_installing_alone_shows_nothing(self, staff: Client, user: User):
        allow(user, "install_triggers")
        assert staff.get(LOG).status_code == 403
        assert staff.post(TRIGGERS, {"database": "default"}).status_code == 403

    def test_nothing_can_be_changed_or_deleted(self, admin_client: Client):
        for url in (OVERVIEW + "add/", OVERVIEW + "leader/change/", OVERVIEW + "leader/delete/"):
            assert admin_client.get(url).status_code == 404, url
        for url in (OVERVIEW, LOG, STATE, SHADOW):
            assert admin_client.post(url).status_code == 405, url

    def test_who_is_not_logged_in_is_asked_to(self, client: Client):
        assert client.get(LOG).status_code == 302


class TestOverview:
    """The first page."""

    def test_it_says_who_leads_and_how_the_tables_are(self, admin_client: Client):
        html = read(admin_client, OVERVIEW)
        assert "Nobody leads" in html
        assert "Database default" in html
        assert "all as wanted" in html

    def test_it_says_what_is_wrong(self, admin_client: Client):
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE testapp_document DISABLE TRIGGER djcrf_pg_update")
        assert re.search(r"1 of \d+ not captured as wanted", read(admin_client, OVERVIEW))

    def test_its_figures_come_as_json(self, admin_client: Client):
        state = admin_client.get(STATE).json()["default"]
        assert state.keys() == {"written", "size", "at", "lag", "leader"}
        assert state["leader"] is None
        assert state["lag"] >= 0
        assert state["size"] > 0

    def test_a_log_that_is_not_there_is_no_fault(self, admin_client: Client):
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE djcrf_pg_change RENAME TO gone")
        assert "There is no change log in this database" in read(admin_client, OVERVIEW)
        assert "default" not in admin_client.get(STATE).json()
        assert "has no change log" in read(admin_client, LOG)

    @pytest.mark.django_db(transaction=True, databases=["default", "second"])
    def test_a_database_that_is_down_takes_no_other_with_it(self, admin_client: Client):
        second = connections["second"]
        address = {**second.settings_dict}
        second.close()
        second.settings_dict |= {"HOST": "127.0.0.1", "PORT": 1}
        try:
            for url in (OVERVIEW, LOG, TRIGGERS, SHADOW):
                read(admin_client, url)
            states = admin_client.get(STATE).json()
        finally:
            second.settings_dict |= address
        assert states["default"].keys() >= {"lag", "leader"}
        assert "refused" in states["second"]["error"]

    def test_a_module_that_cannot_be_imported_is_named_once_however_often_the_figures_were_asked_for(
        self, admin_client: Client
    ):
        with override_settings(ASGI_APPLICATION="tests.nowhere.application"):
            for _ in range(3):
                admin_client.get(STATE)
            assert read(admin_client, OVERVIEW).count("looks for observers behind ASGI_APPLICATION") == 1


class TestLog:
    """The changes."""

    def test_a_change_has_its_row_fields_and_writer(self, admin_client: Client):
        task = Task.objects.create(title="old")
        with djcrf_pg.context(user="<b>kim</b>"):
            Task.objects.filter(pk=task.pk).update(title="new", points=3)
        first, second = rows(read(admin_client, f"{LOG}?model=testapp.Task"))
        assert f"update testapp.Task {task.pk} title old → new points 0 → 3" in first
        assert "&lt;b&gt;kim&lt;/b&gt;" in first
        assert f"create testapp.Task {task.pk}" in second

    def test_each_filter_leaves_the_rest_out(self, admin_client: Client):
        one, two = Task.objects.create(title="one"), Task.objects.create(title="two")
        with djcrf_pg.context(user="kim"):
            document = Document.objects.create(title="three")
        xid = connection.cursor().execute("SELECT pg_current_xact_id()").fetchone()[0]
        assert len(rows(read(admin_client, f"{LOG}?model=testapp.Task"))) == 2
        assert "title two" in rows(read(admin_client, f"{LOG}?model=testapp.Task&pk={two.pk}"))[0]
        assert str(document.pk) in rows(read(admin_client, f"{LOG}?model=testapp.Document&pk={document.pk}"))[0]
        assert len(rows(read(admin_client, f"{LOG}?context=KIM"))) == 1
        assert len(rows(read(admin_client, f"{LOG}?transaction={xid}&model=testapp.Task"))) == 2
        assert rows(read(admin_client, f"{LOG}?transaction={int(xid) + 1}")) == []
        assert len(rows(read(admin_client, f"{LOG}?since=2000-01-01T00:00&model=testapp.Task"))) == 2
        assert rows(read(admin_client, f"{LOG}?until=2000-01-01")) == []
        assert f"History of testapp.Task {one.pk}" in read(admin_client, f"{LOG}?model=testapp.Task&pk={one.pk}")

    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ("model=testapp.Tusk", "There is no model &#x27;testapp.Tusk&#x27;"),
            ("model=nonsense", "one is named app.Model"),
            ("pk=7", "choose the model too"),
            ("model=testapp.Task&pk=seven", "&#x27;seven&#x27; is no key of testapp.Task"),
            ("transaction=-1", "is no transaction"),
            ("transaction=99999999999999999999", "is no transaction"),
            pytest.param("transaction=" + 5_000 * "9", "is no transaction", id="a transaction of 5000 digits"),
            ("since=yesterday", "is no time (since)"),
            ("until=2026-13-45", "is no time (until)"),
            ("before=x", "is no key of a change"),
        ],
    )
    def test_what_is_no_filter_is_named(self, admin_client: Client, query: str, said: str):
        assert said in read(admin_client, f"{LOG}?{query}")

    def test_pages_lead_back_and_forth(self, admin_client: Client):
        Task.objects.bulk_create([Task(title=f"number {n:03}") for n in range(120)])
        newest = read(admin_client, f"{LOG}?model=testapp.Task")
        older = read(admin_client, link(newest, "Older"))
        oldest = read(admin_client, link(older, "Older"))
        assert [len(rows(page)) for page in (newest, older, oldest)] == [50, 50, 20]
        assert "number 119" in rows(newest)[0]
        assert "number 000" in rows(oldest)[-1]
        assert rows(read(admin_client, link(oldest, "Newer"))) == rows(older)
        assert rows(read(admin_client, link(oldest, "Newest"))) == rows(newest)

    def test_no_page_counts_or_skips(self, admin_client: Client, django_assert_num_queries: Any):
        Task.objects.bulk_create([Task(title=str(n)) for n in range(120)])
        read(admin_client, LOG)
        from django.test.utils import CaptureQueriesContext

        with CaptureQueriesContext(connection) as queries:
            read(admin_client, LOG)
        for query in queries.captured_queries:
            sql = query["sql"].upper()
            assert "OFFSET" not in sql
            assert "COUNT(" not in sql or "DJCRF_PG_CHANGE" not in sql or "LIMIT" in sql

    def test_what_is_excluded_never_appears(self, admin_client: Client):
        task = Task.objects.create(title="visible", body="a secret of before")
        with override_settings(DJCRF_PG={"EXCLUDE": {"testapp.Task": ["body"]}}):
            install("default")
            Task.objects.filter(pk=task.pk).update(body="a secret of today", title="visible still")
            html = read(admin_client, f"{LOG}?model=testapp.Task&pk={task.pk}")
        assert "visible still" in html
        assert "a secret" not in html

    def test_markup_in_values_is_text(self, admin_client: Client):
        Task.objects.create(title="<script>alert(1)</script>")
        assert "<script>alert" not in read(admin_client, LOG)


class TestTriggers:
    """The state of the tables."""

    def test_the_button_installs_what_is_missing(self, admin_client: Client):
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE testapp_document DISABLE TRIGGER djcrf_pg_update")
        assert "disabled" in read(admin_client, TRIGGERS)
        response = admin_client.post(TRIGGERS, {"database": "default"}, follow=True)
        html = response.content.decode()
        assert "Triggers enabled on public.testapp_document" in html
        assert "disabled" not in html

    def test_a_database_that_is_none_of_ours_is_refused(self, admin_client: Client):
        assert admin_client.post(TRIGGERS, {"database": "lite"}).status_code == 403

    def test_the_button_s_tables_have_their_own_transactions_also_where_requests_are_atomic(self):
        assert set(resolve(TRIGGERS).func._non_atomic_requests) >= {"default", "second"}


BOOKS = "shop.consumers.ShopConsumer.tasks"

Compared = Callable[..., ShadowResult]


def sample(signals: Any, triggers: Any, pk: str = '["5"]', **origin: Any) -> dict[str, Any]:
    """A sample, as the leader stores it."""
    return {"pk": pk, "signals": signals, "triggers": triggers, "origin": origin}


@pytest.fixture
def compared() -> Compared:
    """Stores a result, as the leader does."""

    def store(
        kind: str, what: str = "", *samples: dict[str, Any], times: int = 1, using: str = "default", **given: Any
    ) -> ShadowResult:
        fields = {"observer": BOOKS, "address": "0123456789abcdef", "model": "testapp.Task", **given}
        now = timezone.now()
        lines = "\n".join(map(json.dumps, samples))
        return ShadowResult.objects.using(using).create(
            **fields, kind=kind, what=what, times=times, first_at=now, last_at=now, samples=lines
        )

    return store


def text(html: str) -> str:
    """A page as people read it."""
    return " ".join(re.sub(r"<[^>]+>", " ", html.partition('<div id="content-main">')[2]).split())


def lines(html: str) -> dict[str, tuple[str, ...]]:
    """The lines of the first sample: the signals' column, the triggers' one, and whether they are marked."""
    table = html.partition('<div class="djcrf-sample">')[2].partition("</table>")[0]
    line = r'<tr( class="djcrf-differs")?><th scope="row">(.*?)</th><td.*?>(.*?)</td><td.*?>(.*?)</td>'
    found = re.findall(line, table, re.DOTALL)
    return {text_of(name): (text_of(a), text_of(b), "differs" if marked else "") for marked, name, a, b in found}


def text_of(markup: str) -> str:
    return re.sub(r"<[^>]+>", "", markup).replace("&quot;", '"')


class TestShadow:
    """What shadow mode has found."""

    def test_the_tab_is_there_where_there_are_results(self, admin_client: Client, compared: Compared):
        for url in (OVERVIEW, LOG, TRIGGERS):
            assert f'href="{SHADOW}"' not in read(admin_client, url), url
        compared("equal")
        for url in (OVERVIEW, LOG, TRIGGERS):
            assert f'href="{SHADOW}"' in read(admin_client, url), url

    def test_the_tab_is_there_where_the_process_is_in_shadow_mode(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(shadowed, "is_on", lambda: True)
        assert f'href="{SHADOW}"' in read(admin_client, OVERVIEW)

    def test_without_results_it_says_how_to_get_some(self, admin_client: Client, monkeypatch: pytest.MonkeyPatch):
        found = text(read(admin_client, SHADOW))
        assert "Shadow mode is off: set DJCRF_PG = {'SHADOW': True}" in found
        assert "Nothing was compared." in found
        assert "Nobody leads" not in found
        monkeypatch.setattr(shadowed, "is_on", lambda: True)
        found = text(read(admin_client, SHADOW))
        assert (
            "Nothing was compared yet. Nobody leads here: start manage.py djcrf_pg listen --database default" in found
        )
        assert "is off" not in found

    def test_each_observer_has_what_is_equal_and_what_differs(self, admin_client: Client, compared: Compared):
        compared("equal", times=40)
        compared("equal", times=2, address="fedcba9876543210")
        compared("missed", "create", times=7)
        compared("extra", "update", times=3)
        compared("equal", observer="shop.consumers.Other.all", address="other", times=9)
        found = text(read(admin_client, SHADOW))
        assert f"{BOOKS} testapp.Task: 42 equal" in found
        assert re.search(r"missed by signals create 7 \d{4}-.* sent by signals alone update 3 \d{4}-", found)
        assert "shop.consumers.Other.all testapp.Task 9" in found
        assert "this is what was compared before" in found

    def test_a_sample_has_its_row_its_writer_and_both_sides(self, admin_client: Client, compared: Compared):
        signals = {"update": [["a", "b"], {"id": 5, "title": "old", "done": False}]}
        triggers = {"update": [["a"], {"id": 5, "title": "new", "points": 1}]}
        origin = {
            "change": 12,
            "transaction": "771",
            "context": {"user": "kim"},
            "process": "shell (process 7 on h)",
            "at": "2026-11-28T09:30:00.5+02:00",
        }
        compared("different", "update: groups", sample(signals, triggers, **origin))
        html = read(admin_client, SHADOW)
        assert f'<a href="{LOG}?model=testapp.Task&amp;pk=5&amp;database=default">testapp.Task 5</a>' in html
        assert f'<a href="{LOG}?transaction=771&amp;database=default">transaction 771</a>' in html
        assert "change 12," in html
        assert "written 2026-11-28 01:30:00.500000" in html
        assert "{&quot;user&quot;: &quot;kim&quot;}" in html
        assert "sent by shell (process 7 on h)" in html
        assert lines(html) == {
            "action": ("update", "update", ""),
            "groups": ("a\nb", "a", "differs"),
            "id": ("5", "5", ""),
            "title": ('"old"', '"new"', "differs"),
            "done": ("false", "—", "differs"),
            "points": ("—", "1", "differs"),
        }

    def test_the_row_of_a_sample_leads_to_its_history(self, admin_client: Client, compared: Compared):
        task = Task.objects.create(title="a")
        compared("missed", "create", sample(None, {"create": [["a"], {"pk": task.pk}]}, pk=f'["{task.pk}"]'))
        (url,) = re.findall(r'<a href="([^"]*pk=[^"]*)"', read(admin_client, SHADOW))
        assert len(rows(read(admin_client, url.replace("&amp;", "&")))) == 1

    def test_what_only_one_side_has_is_said_and_nothing_is_marked(self, admin_client: Client, compared: Compared):
        compared("missed", "create", sample(None, {"create": [["a"], {"id": 5}]}))
        html = read(admin_client, SHADOW)
        assert "Signals sent nothing" in html
        assert "Triggers would send nothing" not in html
        assert lines(html) == {"action": ("—", "create", ""), "groups": ("—", "a", ""), "id": ("—", "5", "")}

    def test_an_action_in_place_of_another_is_beside_it(self, admin_client: Client, compared: Compared):
        compared("different", "", sample({"create": [["a"], {"id": 5}]}, {"update": [["a"], {"id": 5}]}))
        assert lines(read(admin_client, SHADOW)) == {
            "action": ("create", "update", "differs"),
            "groups": ("a", "a", ""),
            "id": ("5", "5", ""),
        }

    def test_an_action_that_one_side_has_besides_is_marked_once(self, admin_client: Client, compared: Compared):
        both, more = {"update": [["a"], {"id": 5}]}, {"delete": [["b"], {"pk": 5}]}
        compared("different", "", sample({**more, **both}, both))
        html = read(admin_client, SHADOW)
        assert lines(html)["action"] == ("delete", "—", "differs")
        assert lines(html)["pk"] == ("5", "—", "")
        assert html.count("djcrf-differs") == 1

    def test_text_that_looks_like_a_number_differs_visibly(self, admin_client: Client, compared: Compared):
        compared(
            "different",
            "update: price",
            sample({"update": [[], {"price": "2.00"}]}, {"update": [[], {"price": 2.0}]}),
        )
        assert lines(read(admin_client, SHADOW))["price"] == ('"2.00"', "2.0", "differs")

    def test_bodies_that_are_no_objects_or_were_not_kept_are_shown_as_they_are(
        self, admin_client: Client, compared: Compared
    ):
        compared("different", "update: body", sample({"update": [["a"], [1]]}, {"update": [["a"]]}))
        assert lines(read(admin_client, SHADOW))["body"] == ("[1]", "too long to be kept", "differs")

    def test_a_failure_has_its_row_and_what_was_raised(self, admin_client: Client, compared: Compared):
        failed = {"pk": '["5"]', "triggers": None, "origin": {"change": 12}}
        compared("failed", "serializer: KeyError: 'x'", failed)
        found = text(read(admin_client, SHADOW))
        assert "fails with triggers serializer: KeyError: &#x27;x&#x27;" in found
        assert "testapp.Task 5 , change 12" in found
        assert "Signals sent" not in found

    def test_a_resync_is_of_all_rows_and_a_model_that_is_gone_has_no_history(
        self, admin_client: Client, compared: Compared
    ):
        compared("missed", "resync", sample(None, {"resync": [["a"], {"reason": "truncate"}]}, pk=""))
        compared("missed", "create", sample(None, {"create": [["a"], {"id": 5}]}), model="gone.Task", observer="b")
        html = read(admin_client, SHADOW)
        assert "testapp.Task (all rows)" in html
        assert "gone.Task 5" in text(html)
        assert "model=gone.Task" not in html

    @pytest.mark.parametrize("bad", ["<script>alert(1)</script>", "\ud800", "\x00", "a" * 5_000, ",", "", "%s&model=x"])
    def test_whatever_stands_in_a_result_is_text(self, admin_client: Client, compared: Compared, bad: str):
        side = {bad: [[bad], {bad: bad, "nested": {bad: [bad]}}]}
        other = {bad: [[bad], bad]}
        origin = {"change": bad, "transaction": bad, "context": bad, "process": bad, "at": bad}
        what = bad.replace("\x00", "").replace("\ud800", "")
        compared("different", what, sample(side, other, pk=json.dumps([bad, bad]), **origin), observer=f"o {what}")
        html = read(admin_client, SHADOW)
        assert "<script>alert" not in html
        assert "1 sample" in html

    def test_a_half_of_a_pair_in_a_writer_s_context_is_text_in_the_log_too(self, admin_client: Client):
        with connection.cursor() as cursor:
            cursor.execute("""SELECT set_config('djcrf_pg.context', '{"user": "\\ud800"}', true)""")
        Task.objects.create(title="a")
        assert "ud800" in read(admin_client, LOG)

    def test_long_values_are_cut_where_they_begin_to_differ(self, admin_client: Client, compared: Compared):
        one, other = (
            [["a" * 4_000, *more], {"a": f"{'x' * 4_000}{end}"}] for more, end in ((["b"], "old"), ([], "new"))
        )
        compared("different", "update: groups", sample({"update": one}, {"update": other}))
        found = lines(read(admin_client, SHADOW))
        assert [len(text) < 400 for line in found.values() for text in line] == [True] * 9
        assert found["groups"][0].endswith("aa\nb")
        assert found["a"][0].endswith('xxold"')
        assert found["a"][1].endswith('xxnew"')

    def test_of_many_fields_those_that_differ_are_shown(self, admin_client: Client, compared: Compared):
        one = {f"field{n}": n for n in range(1_000)}
        compared("different", "a", sample({"update": [["a"], one]}, {"update": [["a"], one | {"field999": 0}]}))
        html = read(admin_client, SHADOW)
        assert lines(html)["field999"] == ("999", "0", "differs")
        assert "942 more lines are not shown." in html

    def test_many_differences_are_on_several_pages(
        self, admin_client: Client, compared: Compared, django_assert_max_num_queries: Any
    ):
        for n in range(DIFFERENCES + 5):
            compared("missed", f"number {n:03}", sample(None, {"create": [[], n]}))
        compared("equal", observer="other", address="other")
        with django_assert_max_num_queries(60):
            first = read(admin_client, SHADOW)
        second = read(admin_client, f"{SHADOW}?from={DIFFERENCES}")
        assert [page.count("missed by signals") for page in (first, second)] == [DIFFERENCES, 5]
        assert f'href="?from={DIFFERENCES}">Next' in first
        assert 'href="?from=0">Previous' in second
        assert ["other" in text(page) for page in (first, second)] == [True, False]
        compared("equal", using="second")
        second = read(admin_client, f"{SHADOW}?from={DIFFERENCES}")
        assert "Without a difference" not in second
        for nonsense in ("-1", "x", "²", "9" * 5_000):
            assert read(admin_client, f"{SHADOW}?from={nonsense}").count("missed by signals") == DIFFERENCES

    def test_observers_that_are_not_compared_have_their_reason(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setitem(shadowed.skipped, "shop.consumers.Odd.all", "its handler is <b>odd</b>")
        html = read(admin_client, SHADOW)
        assert "Not compared" in html
        assert "shop.consumers.Odd.all" in html
        assert "its handler is &lt;b&gt;odd&lt;/b&gt;" in html

    def test_what_is_excluded_never_appears_also_of_before(self, admin_client: Client, compared: Compared):
        secret = [["a"], {"title": "seen", "body": "a secret"}]
        compared("different", "create: body", sample({"create": secret}, {"create": secret}))
        with override_settings(DJCRF_PG={"EXCLUDE": {"testapp.Task": ["body"]}}):
            html = read(admin_client, SHADOW)
        assert "a secret" not in html
        assert lines(html)["body"] == ('"(left out)"', '"(left out)"', "")
        assert lines(html)["title"] == ('"seen"', '"seen"', "")

    def test_what_is_excluded_of_a_table_never_appears_of_its_proxies(self, admin_client: Client, compared: Compared):
        name = "integer"
        secret = {"update": [["a"], {name: "a secret"}]}
        compared("missed", "update", sample(None, secret), model="decodeapp.EverythingProxy")
        with override_settings(DJCRF_PG={"EXCLUDE": {"decodeapp.Everything": [name]}}):
            html = read(admin_client, SHADOW)
        assert "a secret" not in html
        assert lines(html)[name] == ("—", '"(left out)"', "")

    def test_where_nobody_knows_what_is_excluded_no_body_appears(self, admin_client: Client, compared: Compared):
        compared("missed", "create", sample(None, {"create": [["a"], {"body": "a secret"}]}), model="gone.Task")
        assert "a secret" not in read(admin_client, SHADOW)

    def test_a_migration_that_has_not_run_is_named(self, admin_client: Client):
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE djcrf_pg_shadow_result, djcrf_pg_shadow_message")
        found = text(read(admin_client, SHADOW))
        assert "lacks table &quot;djcrf_pg_shadow_result&quot;" in found
        assert "migrate" in found
        assert ">Shadow<" not in read(admin_client, OVERVIEW)

    def test_a_log_that_is_not_there_is_named(self, admin_client: Client):
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE djcrf_pg_change RENAME TO gone")
        assert "has no change log" in read(admin_client, SHADOW)

    def test_a_right_that_is_missing_is_named_with_its_grant(self, admin_client: Client):
        with connection.cursor() as cursor:
            cursor.execute("CREATE ROLE djcrf_shadowless")
            cursor.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO djcrf_shadowless")
            cursor.execute("REVOKE ALL ON djcrf_pg_shadow_result FROM djcrf_shadowless")
            cursor.execute("SET LOCAL ROLE djcrf_shadowless")
        try:
            assert "GRANT SELECT ON djcrf_pg_shadow_result TO djcrf_shadowless" in read(admin_client, SHADOW)
            assert ">Shadow<" not in read(admin_client, LOG)
        finally:
            with connection.cursor() as cursor:
                cursor.execute("RESET ROLE")


class TestLinks:
    """On the pages of a project's own models."""

    def test_a_row_that_is_observed_has_a_link_to_its_changes(self, admin_client: Client):
        task = Task.objects.create(title="a")
        html = read(admin_client, f"/admin/testapp/task/{task.pk}/change/")
        (url,) = re.findall(r'<a href="([^"]*)" class="historylink">Changes</a>', html)
        assert len(rows(read(admin_client, url.replace("&amp;", "&")))) == 1

    @pytest.mark.django_db(databases=["default"])
    def test_no_other_database_is_connected_to_for_it(self, admin_client: Client, monkeypatch: pytest.MonkeyPatch):
        task = Task.objects.create(title="a")
        monkeypatch.setattr("djcrf_pg.registry.lives_on", lambda model, alias: alias == "default")
        assert ">Changes<" in read(admin_client, f"/admin/testapp/task/{task.pk}/change/")

    def test_one_that_nobody_observes_has_none(self, admin_client: Client):
        row = Unheard.objects.create(name="a")
        assert ">Changes<" not in read(admin_client, f"/admin/testapp/unheard/{row.pk}/change/")

    def test_who_may_not_see_the_log_has_none(self, staff: Client, user: User):
        user.user_permissions.add(Permission.objects.get(codename="change_task"))
        task = Task.objects.create(title="a")
        html = read(staff, f"/admin/testapp/task/{task.pk}/change/")
        assert ">History<" in html
        assert ">Changes<" not in html
