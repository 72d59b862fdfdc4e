"""Fixtures of the tests of the parameter guide."""

from guide_runs import data, plain_run, plan, train, written  # noqa: F401 - fixtures
