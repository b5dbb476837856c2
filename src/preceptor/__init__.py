"""Preceptor: teach a reasoning model a written specification, and prove it with a card."""

__version__ = "0.1.0"
