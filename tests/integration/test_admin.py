"""The pages in Django's admin, as Django's test client gets them."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection, connections
from django.test import Client, override_settings
from django.urls import resolve

import djcrf_pg
from djcrf_pg.capture.install import install
from tests.testapp.models import Document, Task, Unheard

pytestmark = pytest.mark.django_db(databases=["default", "second"])

OVERVIEW, LOG, TRIGGERS, STATE = (f"/admin/djcrf_pg/changelog/{page}" for page in ("", "log/", "triggers/", "state/"))


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
        for url in (OVERVIEW, LOG, TRIGGERS, STATE):
            assert staff.get(url).status_code == 403, url

    def test_with_the_permission_all_pages_can_be_read_and_nothing_installed(self, staff: Client, user: User):
        allow(user, "view_changelog")
        assert f'href="{OVERVIEW}"' in read(staff, "/admin/")
        for url in (OVERVIEW, LOG, STATE):
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
        for url in (OVERVIEW, LOG, STATE):
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
            for url in (OVERVIEW, LOG, TRIGGERS):
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
