"""Diagnostics against slow sums and real draws; what is said about thresholds that do not fit."""

from pathlib import Path

import numpy as np
import pytest

from cse_bench.mining.calibration import advice, diagnose, summary
from cse_bench.mining.keyed import NEGATIVE, POSITIVE
from cse_bench.mining.pairs import Pairs, mine_pairs
from cse_bench.mining.propensity import Propensity, probabilities
from cse_bench.mining.sampling import draw_negatives, draw_positives, negative_log_weights, positive_log_weights
from tests.mining.corpus import SENTENCES, corpus_in, settings, teacher

COUNT = len(SENTENCES)
ANCHORS = np.arange(COUNT)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    folder: Path = tmp_path_factory.mktemp("pairs")
    return mine_pairs(corpus_in(folder), teacher(), settings(), sentences=COUNT, cache=folder)


def law(pairs: Pairs, **changes) -> Propensity:
    """Thresholds that leave something on both sides."""
    nearest = pairs.manifest["calibration"]["nearest neighbours"]
    values = {
        "positive_threshold": nearest["0.5"],
        "negative_threshold": nearest["0.25"],
        "temperature": 0.5,
        "gamma": 1.0,
        "epsilon": 0.05,
        "semantic_filter": True,
    }
    return Propensity(**{**values, **changes})


def test_expectations_are_the_means_of_real_draws(pairs: Pairs) -> None:
    chosen = law(pairs)
    found = diagnose(pairs, chosen)
    others, u_positive, u_negative = [], [], []
    surface = {
        (i, int(j)): float(u)
        for i in range(COUNT)
        for j, u in zip(pairs.candidates[i], pairs.surface[i], strict=True)
        if j >= 0
    }
    for epoch in range(300):
        positive = draw_positives(pairs, ANCHORS, chosen, seed=0, epoch=epoch)
        negative = draw_negatives(pairs, ANCHORS, chosen, count=1, seed=0, epoch=epoch)[:, 0]
        others.append((positive != ANCHORS).mean())
        u_positive += [surface[i, int(j)] for i, j in enumerate(positive) if j != i]
        u_negative += [surface[i, int(j)] for i, j in enumerate(negative) if j >= 0]
    assert found["positives_not_self"] == pytest.approx(np.mean(others), abs=0.02)
    assert found["positive_surface"] == pytest.approx(np.mean(u_positive), abs=0.02)
    assert found["negative_surface"] == pytest.approx(np.mean(u_negative), abs=0.02)
    assert 0.05 < found["positives_not_self"] < 0.95


def test_effective_numbers_and_shares_equal_slow_ones(pairs: Pairs) -> None:
    chosen = law(pairs)
    found = diagnose(pairs, chosen)
    p = probabilities(positive_log_weights(pairs, ANCHORS, chosen)[1])
    n = probabilities(negative_log_weights(pairs, ANCHORS, chosen)[1])
    some = n.sum(axis=1) > 0
    assert found["effective_positives"] == pytest.approx(float(np.mean([1 / (row @ row) for row in p])))
    assert found["effective_negatives"] == pytest.approx(float(np.mean([1 / (row @ row) for row in n[some]])))
    assert found["without_negatives"] == pytest.approx(float(1 - some.mean()))
    nearest = pairs.similarity[pairs.candidates[:, 0] >= 0, 0].astype(float)
    assert found["neighbours_above"] == pytest.approx(float((nearest >= chosen.positive_threshold).mean()))
    between = (nearest > chosen.negative_threshold) & (nearest < chosen.positive_threshold)
    assert found["neighbours_between"] == pytest.approx(float(between.mean()))


def test_every_draw_is_allowed_and_repeatable(pairs: Pairs) -> None:
    chosen = law(pairs)
    seen = set()
    for epoch in range(20):
        positive = draw_positives(pairs, ANCHORS, chosen, seed=3, epoch=epoch)
        negative = draw_negatives(pairs, ANCHORS, chosen, count=4, seed=3, epoch=epoch)
        seen.add(positive.tobytes() + negative.tobytes())
        for i in range(COUNT):
            s = dict(zip(pairs.candidates[i].tolist(), pairs.similarity[i].tolist(), strict=True))
            assert positive[i] == i or s[int(positive[i])] >= chosen.positive_threshold
            drawn = [int(j) for j in negative[i] if j >= 0]
            assert len(set(drawn)) == len(drawn)
            assert all(s[j] <= chosen.negative_threshold for j in drawn)
        # One sentence alone, or all in another order: the same draws.
        order = np.random.default_rng(epoch).permutation(COUNT)
        assert np.array_equal(draw_positives(pairs, order, chosen, seed=3, epoch=epoch), positive[order])
        for i in (0, 7, COUNT - 1):
            alone = draw_negatives(pairs, np.array([i]), chosen, count=4, seed=3, epoch=epoch)
            assert np.array_equal(alone[0], negative[i])
    assert len(seen) == 20  # every epoch draws anew
    assert draw_positives(pairs, ANCHORS, chosen, seed=4, epoch=0).tobytes() not in seen
    assert POSITIVE != NEGATIVE


def test_a_sentence_without_candidates_is_its_own_positive_and_has_no_negative(pairs: Pairs) -> None:
    strict = law(pairs, positive_threshold=1.0, negative_threshold=-1.0)
    assert np.array_equal(draw_positives(pairs, ANCHORS, strict, seed=0, epoch=0), ANCHORS)
    assert (draw_negatives(pairs, ANCHORS, strict, count=2, seed=0, epoch=0) == -1).all()
    found = diagnose(pairs, strict)
    assert found["positives_not_self"] == 0
    assert found["without_negatives"] == 1
    assert found["negative_surface"] == 0


def test_gamma_turns_to_other_wordings_on_both_sides(pairs: Pairs) -> None:
    plain, corrected = (diagnose(pairs, law(pairs, gamma=gamma)) for gamma in (0.0, 2.0))
    assert corrected["positive_surface"] < plain["positive_surface"]
    assert corrected["negative_surface"] > plain["negative_surface"]
    assert corrected["positives_not_self"] > plain["positives_not_self"]


def test_remarks_name_what_does_not_fit(pairs: Pairs) -> None:
    calibration = {
        "random pairs": {"0.999": 0.6},
        "nearest neighbours": {"0.6": 0.7, "0.95": 0.8},
    }
    good = {"neighbours_above": 0.2, "positives_not_self": 0.2, "without_negatives": 0.0}
    chosen = law(pairs, positive_threshold=0.75, negative_threshold=0.65)
    assert advice(good, calibration, chosen) == []
    (remark,) = advice({**good, "neighbours_above": 0.9}, calibration, chosen)
    assert "positive_threshold=0.75 keeps 90.0%" in remark
    assert "0.800 to 0.700" in remark
    (remark,) = advice({**good, "positives_not_self": 0.01}, calibration, chosen)
    assert "only 1.0% of the positives are other sentences" in remark
    (remark,) = advice({**good, "without_negatives": 0.3}, calibration, chosen)
    assert "30.0% of the sentences have no hard negative" in remark
    (remark,) = advice(good, calibration, law(pairs, positive_threshold=0.75, negative_threshold=0.5))
    assert "negative_threshold=0.5 is not above the 99.9 % quantile" in remark
    assert advice({**good, "neighbours_above": 0.9}, calibration, law(pairs, semantic_filter=False)) == []


def test_the_summary_is_for_the_result(pairs: Pairs) -> None:
    metrics, facts = summary(pairs, law(pairs))
    assert all(name.startswith("mining/") and np.isfinite(value) for name, value in metrics.items())
    assert facts["teacher"]["weights"] == teacher().describe()["weights"]
    assert facts["calibration"].keys() == {
        "random pairs",
        "nearest neighbours",
        "a sentence with itself, dropout on",
    }
