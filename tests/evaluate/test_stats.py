"""Summaries of a few numbers."""

import math

import pytest

from medseg3d.evaluate.stats import summarize


def test_figures_of_a_few_numbers():
    summary = summarize([1.0, 2.0, 3.0, 6.0])
    assert (summary.mean, summary.median, summary.n, summary.undefined) == (3.0, 2.5, 4, 0)
    assert summary.sd == pytest.approx(math.sqrt(14 / 3))
    assert 1 <= summary.low < summary.mean < summary.high <= 6


def test_undefined_values_are_counted_never_averaged():
    summary = summarize([4.0, math.nan, 6.0])
    assert (summary.mean, summary.n, summary.undefined) == (5.0, 2, 1)


def test_one_value_has_no_spread_and_none_has_nothing():
    one, none = summarize([7.0]), summarize([math.nan])
    assert (one.mean, one.n) == (7.0, 1)
    assert all(math.isnan(x) for x in (one.sd, one.low, one.high))
    assert math.isnan(none.mean)
    assert math.isnan(none.low)
    assert (none.n, none.undefined) == (0, 1)


def test_the_interval_is_the_same_every_time_and_covers_as_much_as_it_says():
    values = [math.sin(k) for k in range(400)]
    first = summarize(values)
    assert first == summarize(values)
    normal = 1.96 * first.sd / math.sqrt(400)
    assert (first.high - first.low) / 2 == pytest.approx(normal, rel=0.1)
