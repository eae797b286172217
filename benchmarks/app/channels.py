"""The channel of django-pgpubsub."""

from dataclasses import dataclass

from pgpubsub.channel import TriggerChannel

from benchmarks.app.models import Published


@dataclass
class PublishedChannel(TriggerChannel):
    """What is written to the table."""

    model = Published
