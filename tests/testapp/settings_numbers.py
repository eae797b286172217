"""The settings, with decimals that are no text."""

from tests.testapp.settings import *  # noqa: F403 - they are settings

REST_FRAMEWORK = {"COERCE_DECIMAL_TO_STRING": False}
