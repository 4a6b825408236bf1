"""What every store promises, whichever engine is behind it.

Whoever runs these gives the fixture `store`; its engine may have been written to before.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from netemu.model.errors import ServiceUnavailable
from netemu.store.base import Change, Compacted, KeyExists, RevisionMismatch, Store


@pytest.fixture
async def begin(store: Store) -> int:
    """The store's revision before the test."""
    return (await store.list("/")).revision


async def changes(store: Store, prefix: str, after: int, count: int) -> list[Change]:
    """The first `count` changes of a watch."""
    found: list[Change] = []
    async with aclosing(store.watch(prefix, after)) as batches:
        async for batch in batches:
            found += batch
            if len(found) >= count:
                return found
    return found


async def test_every_write_gets_the_next_revision(store: Store, begin: int) -> None:
    assert [
        await store.create("/a", b"1"),
        await store.create("/b", b"1"),
        await store.update("/a", b"2"),
        await store.delete("/b"),
    ] == [begin + 1, begin + 2, begin + 3, begin + 4]


async def test_the_newest_revision_is_that_of_the_last_write(store: Store, begin: int) -> None:
    assert await store.newest() == begin

    written = await store.create("/a", b"1")

    assert await store.newest() == written


async def test_get_tells_value_and_revision_of_the_last_write(store: Store, begin: int) -> None:
    await store.create("/a", b"1")
    await store.create("/b", b"1")
    await store.update("/a", b"2")

    assert await store.get("/a") == ("/a", b"2", begin + 3)
    assert await store.get("/c") is None


async def test_list_has_the_keys_of_a_prefix_in_order_and_the_stores_revision(store: Store, begin: int) -> None:
    for key in ("/pods/b", "/pods/a", "/podsy/a", "/nodes/a"):
        await store.create(key, b"x")

    snapshot = await store.list("/pods/")

    assert [item.key for item in snapshot.items] == ["/pods/a", "/pods/b"]
    assert snapshot.revision == begin + 4


async def test_create_refuses_a_key_that_exists(store: Store, begin: int) -> None:
    await store.create("/a", b"1")

    with pytest.raises(KeyExists):
        await store.create("/a", b"2")

    assert await store.get("/a") == ("/a", b"1", begin + 1)


@pytest.mark.parametrize("verb", ["update", "delete"])
async def test_a_write_against_an_old_revision_is_refused_and_tells_the_right_one(
    store: Store, begin: int, verb: str
) -> None:
    await store.create("/a", b"1")
    await store.update("/a", b"2")

    with pytest.raises(RevisionMismatch) as refusal:
        await (store.update("/a", b"3", begin + 1) if verb == "update" else store.delete("/a", begin + 1))

    assert (refusal.value.found, refusal.value.revision) == (begin + 2, begin + 2)
    assert await store.get("/a") == ("/a", b"2", begin + 2)


@pytest.mark.parametrize("verb", ["update", "delete"])
async def test_a_write_to_a_key_that_does_not_exist_is_refused(store: Store, verb: str) -> None:
    with pytest.raises(RevisionMismatch) as refusal:
        await (store.update("/a", b"3") if verb == "update" else store.delete("/a"))

    assert refusal.value.found == 0


async def test_of_many_writers_against_one_revision_exactly_one_wins(store: Store, begin: int) -> None:
    await store.create("/a", b"0")

    answers = await asyncio.gather(
        *(store.update("/a", str(n).encode(), begin + 1) for n in range(50)), return_exceptions=True
    )

    assert [answer for answer in answers if isinstance(answer, int)] == [begin + 2]
    assert all(isinstance(answer, int | RevisionMismatch) for answer in answers)


async def test_watch_replays_what_came_after_a_revision_with_previous_values(store: Store, begin: int) -> None:
    await store.create("/a", b"1")
    await store.create("/b", b"1")
    await store.update("/a", b"2")
    await store.delete("/b")

    assert await changes(store, "/", begin + 1, 3) == [
        (begin + 2, "/b", b"1", None),
        (begin + 3, "/a", b"2", b"1"),
        (begin + 4, "/b", None, b"1"),
    ]


async def test_watch_goes_on_with_what_is_written_later_without_gap_or_repetition(store: Store, begin: int) -> None:
    async def write() -> None:
        for number in range(200):
            await store.create(f"/{number:03}", b"x")

    _, found = await asyncio.gather(write(), changes(store, "/", begin, 200))

    assert list(range(begin + 1, begin + 201)) == [change.revision for change in found]


async def test_the_first_batch_of_a_watch_is_the_history_even_when_there_is_none(store: Store, begin: int) -> None:
    await store.create("/a", b"1")

    async with aclosing(store.watch("/", begin + 1)) as batches:
        assert await anext(batches) == []


async def test_watch_sees_only_its_prefix(store: Store, begin: int) -> None:
    await store.create("/nodes/a", b"1")
    await store.create("/pods/a", b"1")

    assert [change.key for change in await changes(store, "/pods/", begin, 1)] == ["/pods/a"]


async def test_a_key_made_again_has_no_previous_value(store: Store, begin: int) -> None:
    await store.create("/a", b"1")
    await store.delete("/a")
    await store.create("/a", b"2")

    assert await changes(store, "/", begin + 2, 1) == [(begin + 3, "/a", b"2", None)]


async def test_watch_from_before_the_compaction_is_refused_with_where_history_begins(store: Store, begin: int) -> None:
    for key in ("/a", "/b", "/c"):
        await store.create(key, b"1")
    await store.compact(begin + 2)

    with pytest.raises(Compacted) as refusal:
        await changes(store, "/", begin + 1, 1)

    assert refusal.value.revision == begin + 2


async def test_compaction_keeps_present_values_and_later_history_with_its_previous_values(
    store: Store, begin: int
) -> None:
    await store.create("/a", b"1")
    await store.update("/a", b"2")
    await store.create("/b", b"1")
    await store.update("/a", b"3")
    await store.compact(begin + 3)

    assert await changes(store, "/", begin + 3, 1) == [(begin + 4, "/a", b"3", b"2")]
    assert (await store.list("/")).items == [("/a", b"3", begin + 4), ("/b", b"1", begin + 3)]


async def test_compacting_everything_leaves_the_revision_where_it_is(store: Store, begin: int) -> None:
    await store.create("/a", b"1")
    await store.delete("/a")
    await store.compact(begin + 99)

    assert await store.create("/b", b"1") == begin + 3


async def test_watches_end_when_the_store_closes(store: Store, begin: int) -> None:
    await store.create("/a", b"1")
    async with aclosing(store.watch("/", begin)) as batches:
        assert await anext(batches) == [(begin + 1, "/a", b"1", None)]
        later = asyncio.gather(anext(batches, None))
        await asyncio.sleep(0)

        await store.close()

        assert (await later)[0] is None


async def test_a_closed_store_refuses_writes(store: Store) -> None:
    await store.close()

    with pytest.raises(ServiceUnavailable):
        await store.create("/a", b"1")
