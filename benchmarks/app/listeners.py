"""The listener of django-pgpubsub. It counts, and says so: less than what an application would do."""

import os
import time

import pgpubsub

from benchmarks.app.channels import PublishedChannel
from benchmarks.app.models import Published

AWAITED = int(os.environ.get("BENCH_AWAITED", "0"))
_heard = 0


@pgpubsub.post_save_listener(PublishedChannel)
def hear(old: Published | None, new: Published) -> None:
    """Say when another so many changes were heard of."""
    global _heard
    _heard += 1
    if AWAITED and _heard % AWAITED == 0:
        print(f"heard {_heard} at {time.monotonic()}", flush=True)
