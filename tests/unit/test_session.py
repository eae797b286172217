"""Waiting for an answer: only time counts in which the event loop could have taken it."""

import asyncio
import time

import pytest

from djcrf_pg.listener import session as module
from djcrf_pg.listener.session import _comes


async def test_an_answer_that_comes_is_taken() -> None:
    answer = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, answer.set_result, 1)
    assert await _comes(answer, 60.0)


async def test_patience_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STEP", 0.01)
    assert not await _comes(asyncio.get_running_loop().create_future(), 0.05)


async def test_a_loop_that_is_kept_from_its_work_does_not_lose_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time that the loop gets to run it is late by far; the answer is there, behind what keeps it."""
    monkeypatch.setattr(module, "_STEP", 0.01)
    loop = asyncio.get_running_loop()
    answer = loop.create_future()
    turns = 0

    def hold() -> None:
        nonlocal turns
        time.sleep(0.05)
        turns += 1
        if turns < 10:
            loop.call_soon(hold)
        else:
            answer.set_result(1)

    loop.call_soon(hold)
    assert await _comes(answer, 0.05)
