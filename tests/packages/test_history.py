"""django-simple-history connects receivers with ``weak=False``: they are functions where others are references."""

from collections.abc import Callable

from tests.packages.history.models import Poll
from tests.subscriber import Subscriber


def test_a_model_and_its_history_are_observed(
    subscriber: Callable[..., Subscriber], run_command: Callable[..., str]
) -> None:
    assert "no issues" in run_command("check")
    client = subscriber("polls")
    client.subscribe("polls", "records")
    poll = Poll.objects.create(question="Why?")
    record = Poll.history.get()
    assert sorted((event["observer"], event["action"], event["body"]["pk"]) for event in client.events(2)) == [
        ("polls", "create", poll.pk),
        ("records", "create", record.pk),
    ]
