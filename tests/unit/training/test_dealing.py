"""What a group of processes shares, in one process."""

from __future__ import annotations

import pytest

from lamina.training import group


def test_one_process_agrees_with_itself():
    assert group.is_leader()
    assert group.lead(lambda: b"x") == b"x"
    assert group.gather(b"x") == [b"x"]
    assert group.find_deviating("x") == ""


@pytest.mark.parametrize(("count", "size"), [(4, 3), (1, 1), (0, 4), (7, 7)])
def test_all_is_dealt_once(count, size):
    dealt = [item for rank in range(size) for item in group.deal(count, size, rank)]
    assert dealt == list(range(count))
