"""For the tests of projects that use djcrf_pg.

:func:`capture_changes` lists what a test's writes would send, in a test that is rolled back; :func:`deliver` hands that
to its consumers. :func:`settled` waits, in a test that commits, until consumers have handled everything.
:mod:`~djcrf_pg.testing.faults` has things go wrong. ``djcrf_pg.pytest_plugin``, which pytest loads by itself, explains
why nothing came, and closes what tests of consumers leave open.
"""

from djcrf_pg.testing import faults
from djcrf_pg.testing.capture import CapturedChange, capture_changes
from djcrf_pg.testing.waiting import deliver, settled

__all__ = ["CapturedChange", "capture_changes", "deliver", "faults", "settled"]
