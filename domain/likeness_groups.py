"""Groups of looks that are alike, by average linkage over a matrix of similarities."""

from __future__ import annotations

from collections.abc import Sequence


def group_by_likeness(alike: Sequence[Sequence[float]], threshold: float) -> list[list[int]]:
    """Average linkage: the two most alike groups are joined while their mean similarity reaches the threshold.

    `alike` is square and symmetric; its diagonal is not read. Groups of indices, the largest first. n² steps and
    memory for n looks (nearest-neighbour chains: F. Murtagh, A Survey of Recent Advances in Hierarchical Clustering
    Algorithms, The Computer Journal 26(4), 1983; average linkage is reducible, so the result is the greedy one).
    """
    rows = {
        index: {other: value for other, value in enumerate(row) if other != index} for index, row in enumerate(alike)
    }
    groups = {index: [index] for index in rows}
    done: list[list[int]] = []
    chain: list[int] = []
    while groups:
        if not chain:
            chain.append(min(groups))
        last = chain[-1]
        row = rows[last]
        before = chain[-2] if len(chain) > 1 else None
        nearest = max(row, key=lambda other: (row[other], other == before, -other), default=None)
        if nearest is None or row[nearest] < threshold:
            # Its nearest is too far, and joining others never brings it nearer than its nearest: it stays as it is.
            done.append(groups.pop(last))
            for other in rows.pop(last):
                del rows[other][last]
            chain.pop()
        elif nearest == before:
            _join(groups, rows, last, nearest)
            del chain[-2:]
        else:
            chain.append(nearest)
    return sorted((sorted(group) for group in done), key=lambda group: (-len(group), group))


def _join(groups: dict[int, list[int]], rows: dict[int, dict[int, float]], kept: int, gone: int) -> None:
    """Make two groups one under the first's name; similarities become means over all pairs (Lance and Williams)."""
    of_kept, of_gone = len(groups[kept]), len(groups[gone])
    groups[kept] += groups.pop(gone)
    former = rows.pop(gone)
    del rows[kept][gone]
    for other in rows[kept]:
        mean = (of_kept * rows[kept][other] + of_gone * former[other]) / (of_kept + of_gone)
        rows[kept][other] = rows[other][kept] = mean
        del rows[other][gone]
