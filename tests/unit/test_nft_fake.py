"""The contract of `Nft`, on the fake."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import pytest

from netemu.kernel.nftables import Nft
from netemu.model import nft
from netemu.model.errors import KernelBusy
from netemu.testing.nftables import FakeNft
from tests.unit.nft_contract import BEHAVIOUR, REFUSED, TABLE, begin, check_refusal


@pytest.mark.parametrize(("operations", "code"), REFUSED)
async def test_refuses(operations: list[nft.Operation], code: int) -> None:
    await check_refusal(FakeNft(), operations, code)


@pytest.mark.parametrize("check", BEHAVIOUR)
async def test_behaves(check: Callable[[Nft], Awaitable[None]]) -> None:
    await check(FakeNft())


async def test_fake_refuses_once_when_told_to() -> None:
    fake = FakeNft()
    await begin(fake)
    fake.fail_next = errno.EBUSY

    with pytest.raises(KernelBusy):
        await fake.run(nft.Transaction(TABLE, (nft.Add(nft.Chain("x")),)))
    await fake.run(nft.Transaction(TABLE, (nft.Add(nft.Chain("x")),)))

    assert len(fake.runs) == 2
