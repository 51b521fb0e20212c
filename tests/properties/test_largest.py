"""The search for the largest batch that fits, wherever it begins and whatever fits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.largest import MAX_PROBES, Search

LARGEST = 2**31 - 1
# Every size is as likely as any other to be of 1, 2, ... 31 bits.
sizes = st.integers(0, 30).flatmap(lambda bits: st.integers(2**bits, 2 ** (bits + 1) - 1))


@given(start=sizes, limit=sizes | st.just(0))
def test_it_finds_a_batch_that_fits_and_leaves_at_most_a_sixteenth_to_gain(start: int, limit: int) -> None:
    search, tried = Search(start), list[int]()
    while (batch_size := search.next_batch) is not None:
        assert 1 <= batch_size <= LARGEST
        tried.append(batch_size)
        search.tell(batch_size, fits=batch_size <= limit)
    assert len(set(tried)) == len(tried) < MAX_PROBES
    if limit == 0:
        assert search.found is None
    else:
        assert search.found is not None
        assert search.found <= limit
        assert search.found == LARGEST or search.found + max(search.found // 16, 1) > limit
