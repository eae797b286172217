"""The models hold, and the model checker finds each mistake that is made in them on purpose.

No state of the doorbell sleeps with a committed change that was not read and no ring due. No change is left out that a
subscription is to receive, by a leader that makes nothing for groups that nobody has. A client that resumes, and one
whose process heals what the layer has dropped, handles each change once and in order.
"""

import re

import pytest

from models import check
from models.check import MODELS, Model

pytestmark = pytest.mark.skipif(bool(check.missing()), reason=f"not on the PATH: {', '.join(check.missing())}")

SIZES = [
    pytest.param(model, size, id=f"{model.path.stem}: {what}", marks=[pytest.mark.slow] if number else [])
    for model in MODELS
    for number, (what, size) in enumerate(model.sizes.items())
]
MISTAKES = [pytest.param(model, mistake, id=mistake) for model in MODELS for mistake in model.mistakes]


@pytest.mark.parametrize(("model", "size"), SIZES)
def test_the_model_holds(model: Model, size: str) -> None:
    verdict = check.check(model, size)
    assert verdict.holds, verdict.output
    assert verdict.states > 1_000_000


@pytest.mark.parametrize(("model", "mistake"), MISTAKES)
def test_the_model_checker_finds_the_mistake(model: Model, mistake: str) -> None:
    verdict = check.check(model, model.mistaken, mistake)
    assert verdict.broken, verdict.output
    assert model.fault in verdict.trace


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.path.stem)
def test_each_mistake_of_the_model_is_made(model: Model) -> None:
    text = model.path.read_text("utf-8")
    sizes = set(re.findall(r"#ifndef (\w+)\n#define \1 ", text))
    assert set(re.findall(r"#ifn?def (\w+)$", text, re.MULTILINE)) - sizes == set(model.mistakes)
