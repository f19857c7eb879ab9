"""The plan, over every shape of data, batch and world: an index test, no training."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchstone.train.plan import Plan, evaluation_rows


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    samples = draw(st.integers(1, 40))
    group = draw(st.sampled_from((1, 2, 4)))
    return Plan(
        samples=samples,
        batch_size=draw(st.integers(1, samples)),
        microbatch_size=draw(st.none() | st.integers(1, 10).map(lambda groups: groups * group)),
        world=draw(st.integers(1, 4)),
        group=group,
    )


def order_of(plan: Plan) -> np.ndarray:
    return np.random.default_rng(plan.samples).permutation(plan.samples)


def real_rows(update: list) -> np.ndarray:
    """Rows of weight 1 of one update, in the order of ranks and micro-batches."""
    kept = [rows[weights > 0] for rank in update for rows, weights in rank]
    return np.concatenate(kept)


@given(plans())
def test_every_sample_once_an_epoch_with_weight_1(plan: Plan) -> None:
    order = order_of(plan)
    updates = [plan.update(order, number) for number in range(plan.updates)]
    assert np.array_equal(np.concatenate([real_rows(update) for update in updates]), order)
    for update in updates:
        weights = np.concatenate([weights for rank in update for _, weights in rank])
        assert set(weights.tolist()) <= {0.0, 1.0}
    assert [len(real_rows(update)) for update in updates[:-1]] == [plan.batch_size] * (plan.updates - 1)


@given(plans())
def test_all_ranks_have_as_many_microbatches_none_larger_than_asked(plan: Plan) -> None:
    order = order_of(plan)
    for number in range(plan.updates):
        update = plan.update(order, number)
        assert len(update) == plan.world
        assert len({len(rank) for rank in update}) == 1
        sizes = [len(rows) for rank in update for rows, _ in rank]
        assert min(sizes) >= 1
        assert plan.microbatch_size is None or max(sizes) <= plan.microbatch_size
        assert all(len(rows) == len(weights) for rank in update for rows, weights in rank)


@given(plans())
def test_groups_are_never_cut(plan: Plan) -> None:
    order = order_of(plan)
    place = {sample: position for position, sample in enumerate(order.tolist())}
    for number in range(plan.updates):
        first = number * plan.batch_size
        shares = [rows[weights > 0] for rank in plan.update(order, number) for rows, weights in rank]
        groups_of = [{(place[sample] - first) // plan.group for sample in share.tolist()} for share in shares]
        assert sum(map(len, groups_of)) == len(set().union(*groups_of))
        # And in their own order, so that row 2k is mixed with row 2k + 1 wherever it is computed.
        assert all((place[share[0]] - first) % plan.group == 0 for share in shares if len(share))


@given(plans())
def test_padding_is_one_group_of_the_same_window_with_weight_0(plan: Plan) -> None:
    order = order_of(plan)
    for number in range(plan.updates):
        window = order[number * plan.batch_size : (number + 1) * plan.batch_size]
        for rows, weights in (share for rank in plan.update(order, number) for share in rank):
            if not weights.any():
                assert np.array_equal(rows, window[: plan.group])
            else:
                assert weights.all()


@given(plans(), st.integers(1, 4))
def test_another_world_covers_the_same_rows(plan: Plan, world: int) -> None:
    other = Plan(samples=plan.samples, batch_size=plan.batch_size, microbatch_size=plan.microbatch_size, world=world, group=plan.group)
    order = order_of(plan)
    assert other.updates == plan.updates
    for number in range(plan.updates):
        assert np.array_equal(real_rows(plan.update(order, number)), real_rows(other.update(order, number)))


@given(plans(), st.data())
def test_a_rank_starts_anywhere(plan: Plan, data: st.DataObject) -> None:
    order, rank = order_of(plan), data.draw(st.integers(0, plan.world - 1))
    start = data.draw(st.integers(0, plan.updates))
    whole, tail = list(plan.rows(order, rank)), list(plan.rows(order, rank, start))
    assert repr(whole[start:]) == repr(tail)
    assert repr(whole) == repr([plan.update(order, number)[rank] for number in range(plan.updates)])


@given(samples=st.integers(1, 40), batch_size=st.integers(1, 45), world=st.integers(1, 4))
def test_an_evaluation_scores_each_sample_once_in_the_same_batches_whatever_the_world(samples: int, batch_size: int, world: int) -> None:
    alone = [rows.tolist() for ((rows, _),) in evaluation_rows(samples, batch_size)]
    assert list(chain.from_iterable(alone)) == list(range(samples))
    by_rank = [[rows.tolist() for ((rows, _),) in evaluation_rows(samples, batch_size, rank, world)] for rank in range(world)]
    assert sorted(chain.from_iterable(by_rank)) == alone
    assert all((weights == 1).all() for ((_, weights),) in evaluation_rows(samples, batch_size))


def test_a_short_last_window_is_an_update_of_its_own() -> None:
    plan = Plan(samples=7, batch_size=4, microbatch_size=1)
    order = np.arange(7)
    assert plan.updates == 2
    assert [len(plan.update(order, number)[0]) for number in range(2)] == [4, 3]


def test_fewer_samples_than_ranks_leave_some_with_padding() -> None:
    shares = Plan(samples=9, batch_size=8, world=4, group=2).update(np.arange(9), 1)
    assert sorted(float(weights.sum()) for ((_, weights),) in shares) == [0, 0, 0, 1]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"samples": 3, "batch_size": 4}, r"run\.batch_size is 4, but the training split has 3 samples"),
        ({"samples": 8, "batch_size": 4, "microbatch_size": 3, "group": 2}, r"microbatch_size.*3.*2"),
        ({"samples": 8, "batch_size": 4, "microbatch_size": 2, "group": 4}, r"microbatch_size.*2.*4"),
    ],
)
def test_what_cannot_be_cut_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(**settings)
