"""Fixtures of all tests; its place also lets them import ``helpers``."""
