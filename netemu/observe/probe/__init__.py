"""Connecting again and again, and what came of it."""
