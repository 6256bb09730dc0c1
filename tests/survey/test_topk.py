"""The lists of the strongest are those of a full sort, however the data were cut."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from optogram.survey.topk import TopK, challenge, challenge_everywhere, merged, ordered_keys

# Few distinct values, so that ties are everywhere.
entry = st.tuples(
    st.sampled_from([-1.5, -0.0, 0.0, 0.5, 2.0]), st.integers(0, 6), st.integers(0, 4)
)
entries = st.lists(entry, max_size=12, unique_by=lambda e: (e[1], e[2]))
several = st.lists(entries, min_size=1, max_size=4)


def lists(found, k):
    """One unit's list in the plain way: sort, cut, fill up."""
    best = sorted(set(found), key=lambda e: (-e[0], e[1], e[2]))[:k]
    best += [(-float("inf"), -1, -1)] * (k - len(best))
    values, images, places = (list(column) for column in zip(*best, strict=True))
    return TopK(torch.tensor([values]), torch.tensor([images]), torch.tensor([places]))


def same(one, other):
    return (
        torch.equal(one.values, other.values)
        and torch.equal(one.images, other.images)
        and torch.equal(one.places, other.places)
    )


@given(entries, entries, st.integers(1, 5))
def test_a_merged_list_is_the_sorted_union(one, other, k):
    known = {(e[1], e[2]): e for e in one}
    other = [known.get((e[1], e[2]), e) for e in other]
    assert same(merged(lists(one, k), lists(other, k)), lists(one + other, k))


@given(entries, entries, entries, st.integers(1, 5))
def test_merging_is_associative_commutative_and_idempotent(a, b, c, k):
    a, b, c = (lists(x, k) for x in (a, b, c))
    left, right = merged(merged(a, b), c), merged(a, merged(b, c))
    assert same(left, right)
    assert same(merged(a, b), merged(b, a))
    assert same(merged(left, b), left)


maps = st.lists(
    st.lists(
        st.lists(st.sampled_from([-1.0, 0.0, 0.5, 3.0]), min_size=4, max_size=4),
        min_size=2,
        max_size=2,
    ),
    min_size=1,
    max_size=9,
)


@given(maps, st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_streaming_finds_what_a_sort_of_everything_finds(answers, k, batch, everywhere):
    answers = torch.tensor(answers)
    held = TopK.empty(2, k)
    for first in range(0, len(answers), batch):
        part = answers[first : first + batch]
        numbers = torch.arange(first, first + len(part))
        strongest = part.amax(2)
        if everywhere:
            held = challenge_everywhere(
                held, strongest, numbers, lambda r, u, part=part: part[r, u]
            )
        else:
            held = challenge(held, strongest, numbers, lambda r, u, part=part: part[r, u].argmax(1))
    for unit in range(2):
        assert same(held[torch.tensor([unit])], lists(plainly(answers[:, unit], everywhere), k))


def plainly(unit, everywhere):
    found = []
    for image, row in enumerate(unit.tolist()):
        places = range(len(row)) if everywhere else [row.index(max(row))]
        found += [(row[place], image, place) for place in places]
    return found


@given(maps, st.integers(1, 4), st.randoms(use_true_random=False))
def test_images_may_come_in_any_order_and_twice(answers, k, chance):
    answers = torch.tensor(answers)
    order = [*range(len(answers)), *range(len(answers))]
    chance.shuffle(order)
    held = TopK.empty(2, k)
    for image in order:
        part = answers[image : image + 1]
        find = lambda r, u, part=part: part[r, u].argmax(1)  # noqa: E731
        held = challenge(held, part.amax(2), torch.tensor([image]), find)
    for unit in range(2):
        assert same(held[torch.tensor([unit])], lists(plainly(answers[:, unit], False), k))


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
def test_keys_order_values_and_then_places(values):
    values = [0.0 if v == 0 else v for v in values]
    keys = ordered_keys(torch.tensor([values]))[0].tolist()
    by_key = sorted(range(len(values)), key=lambda i: -keys[i])
    assert by_key == sorted(range(len(values)), key=lambda i: (-values[i], i))


def test_only_images_that_enter_a_list_are_looked_into():
    asked = []

    def find(rows, units):
        asked.append((rows.tolist(), units.tolist()))
        return torch.zeros_like(rows)

    held = challenge(TopK.empty(1, 1), torch.tensor([[5.0]]), torch.tensor([0]), find)
    challenge(held, torch.tensor([[4.0], [6.0], [5.0]]), torch.tensor([1, 2, 3]), find)
    assert asked == [([0], [0]), ([1], [0])]
