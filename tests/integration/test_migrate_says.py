"""``manage.py migrate`` says what it did to the triggers, and nothing where it did nothing."""

from tests.project import MODELS, Project


def lines(project: Project, *arguments: str) -> list[str]:
    """What ``migrate`` says beside what Django does."""
    output = project.manage("migrate", *arguments).stdout.splitlines()
    return [line for line in output if "triggers: " in line or "lacks" in line]


def test_migrate_says_what_it_did_to_the_triggers_of_each_table(project: Project) -> None:
    made = [f"  triggers: public.{table} created" for table in ("shelf_book", "shelf_book_authors")]
    assert lines(project) == made
    assert lines(project) == []
    project.rows("ALTER TABLE shelf_book DISABLE TRIGGER djcrf_pg_update")
    assert lines(project, "--database", "default") == ["  triggers: public.shelf_book enabled"]
    project.write("shelf/consumers.py", "")
    assert lines(project) == [line.replace("created", "dropped") for line in made]


def test_migrate_says_nothing_when_it_is_asked_to_be_silent(project: Project) -> None:
    assert project.manage("migrate", "--verbosity", "0").stdout == ""
    assert len(project.triggers()) == 8


def test_migrate_says_which_observed_table_no_migration_makes(migrated: Project) -> None:
    migrated.write("shelf/models.py", f"{MODELS}\nclass Loan(models.Model):\n    pass\n")
    consumers = (migrated.folder / "shelf" / "consumers.py").read_text()
    migrated.write(
        "shelf/consumers.py",
        consumers.replace("Book,", "Loan,").replace("import Book", "import Loan").replace(", many_to_many=True", ""),
    )
    (said,) = lines(migrated)
    assert said == (
        "  Database 'default' lacks table \"shelf_loan\": no migration makes it yet. Run `manage.py makemigrations "
        "shelf`, and then `manage.py migrate`."
    )
