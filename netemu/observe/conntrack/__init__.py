"""Connections as conntrack knows them, with the lab's names."""
