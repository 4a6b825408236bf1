"""Packets as they pass links, in one stream."""
