"""Instances as JSON data, and back."""

import json
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange, NumericRange

from djcrf_pg.listener import portable
from tests.decodeapp.models import Everything

VALUES: dict[str, Any] = {
    "big": -(2**63),
    "boolean": False,
    "decimal": Decimal("123456789012345678901234567890.123456789012345678901234567890"),
    "double": 5e-324,
    "text": 'a "b" \\ é',
    "strange": "",
    "address": "::1",
    "uuid": uuid.UUID(int=1),
    "binary": b"\x00\xff",
    "stamp": datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC),
    "date": date(1, 1, 1),
    "time": time(23, 59, 59, 999_999),
    "duration": timedelta(days=-45, microseconds=1),
    "data": {"a": [1, 1.5, None, "x"]},
    "target_id": uuid.UUID(int=2),
    "by_code_id": "code",
    "integers": [1, None, -(2**63)],
    "texts": ["NULL", None, ""],
    "decimals": [[Decimal("1.10"), Decimal("2")]],
    "durations": [timedelta(days=45)],
    "integer_range": NumericRange(1, None, "[)"),
    "stamp_range": DateTimeTZRange(datetime(2026, 1, 1, tzinfo=UTC), None),
    "ranges": [NumericRange(1, 2), NumericRange(empty=True)],
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_comes_back(name: str) -> None:
    instance = Everything.from_db("default", ["id", name], [5, VALUES[name]])
    data = json.loads(json.dumps(portable.dump(instance)))
    loaded = portable.load(Everything, "default", data)
    assert vars(loaded)[name] == VALUES[name]
    assert loaded.pk == 5
    assert loaded._state.db == "default"
    assert not loaded._state.adding


def test_null_comes_back_and_what_is_deferred_stays_so() -> None:
    instance = Everything.from_db("default", ["id", "text"], [5, None])
    data = portable.dump(instance)
    assert data == {"id": "5", "text": None}
    assert portable.load(Everything, "default", data).get_deferred_fields() == instance.get_deferred_fields()
