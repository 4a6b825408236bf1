"""Fakes and fixtures for tests of netemu and of what is built on it.

A fake kernel object refuses what the kernel refuses; one contract suite runs on both.
"""
