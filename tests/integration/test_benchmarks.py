"""That the benchmarks' application can be run; what they measure is no test's business."""

from tests.servers import ManagePy, PgParams, app_env


def test_the_application_of_the_benchmarks_passes_its_checks(pg: PgParams) -> None:
    env = app_env(dbname=pg.dbname, env={"DJANGO_SETTINGS_MODULE": "benchmarks.app.settings"})
    ManagePy.run("check", env=env)  # raises what it says where it fails
