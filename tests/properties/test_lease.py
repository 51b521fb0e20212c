"""Core sets exclude each other exactly where they overlap."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.builders import a_device
from workers.lease import Lease, claims_of

core_sets = st.sets(st.integers(0, 11), min_size=1, max_size=6).map(tuple)


@given(first=core_sets, second=core_sets)
def test_core_sets_exclude_each_other_exactly_where_they_overlap(
    first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        one, another = (
            Lease(
                claims_of(a_device("h", "cpu", cores=cores), is_alone=False),
                run_id="run",
                head="head",
                folder=Path(folder, "leases"),
            )
            for cores in (first, second)
        )
        told: list[str] = []
        with one, another:
            assert one.take(0.0, pause=lambda _: True, tell=told.append)
            is_ours = another.take(60.0, pause=lambda _: True, tell=told.append)
            overlap = sorted(set(first) & set(second))
            assert is_ours is not bool(overlap)
            assert [reason.split(" is ")[0] for reason in told] == [f"core {core}" for core in overlap[:1]]
