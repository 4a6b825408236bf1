"""The engines that need nothing but this machine's memory and disk; etcd is in tests/kernel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from netemu.store.base import Store
from netemu.store.sqlite import SqliteStore
from netemu.testing.store import MemoryStore
from tests.unit.store_contract import *  # noqa: F403


@pytest.fixture(params=["sqlite", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    engine: Store = await SqliteStore.open(tmp_path / "store.db") if request.param == "sqlite" else MemoryStore()

    yield engine

    await engine.close()
