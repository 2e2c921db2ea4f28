from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import numpy as np
import pytest

from tuner.cost_model import HELD_OUT_POINTS, Samples, XGBCostModel, judge, rank_quality, relative_throughput
from tuner.cost_model_store import HeldOutPoint
from tuner.search.features import MISSING


def samples(count: int = 200, *, seed: int = 0) -> Samples:
    """Two workloads whose latency depends on the first feature; the second is noise, the third often missing."""
    rng = np.random.default_rng(seed)
    features = rng.random((count, 3)).astype(np.float32)
    workloads = np.where(rng.random(count) < 0.5, "slow", "fast")
    latency_us = np.exp2(4 * features[:, 0]) * np.where(workloads == "slow", 1000.0, 10.0)
    features[rng.random(count) < 0.5, 2] = MISSING
    return Samples(features=features, latency_us=latency_us, workloads=workloads.astype(np.str_))


def fitted(data: Samples) -> XGBCostModel:
    model = XGBCostModel(seed=0)
    model.fit(data.features, data.latency_us, data.workloads)
    return model


def test_labels_compare_within_a_workload_only() -> None:
    labels = relative_throughput(np.array([10.0, 20.0, 1000.0, 1e9]), np.array(["a", "a", "b", "b"]))
    assert labels.tolist() == [0.0, -1.0, 0.0, -4.0]


def test_the_ranker_ranks_what_it_has_not_seen() -> None:
    model, fresh = fitted(samples()), samples(seed=1)
    scores = model.predict(fresh.features)
    assert np.corrcoef(scores, -fresh.features[:, 0])[0, 1] > 0.95


def test_held_out_quality_is_high_where_there_is_something_to_learn_and_chance_where_not() -> None:
    learned = rank_quality(samples(400), seed=0)
    rng = np.random.default_rng(0)
    noise = samples(400)
    shuffled = Samples(features=noise.features, latency_us=rng.permutation(noise.latency_us), workloads=noise.workloads)
    chance = rank_quality(shuffled, seed=0)
    assert learned["pairwise_accuracy"] > 0.9
    assert learned["top_1"] > 0.8
    assert learned["top_1"] <= learned["top_5"] <= 1.0
    assert chance["pairwise_accuracy"] < 0.7


def test_quality_is_judged_on_workloads_that_were_left_out() -> None:
    data = samples()
    one = data.workloads == "slow"
    alone = Samples(features=data.features[one], latency_us=data.latency_us[one], workloads=data.workloads[one])
    assert rank_quality(alone, seed=0) == {}
    # latency rises with the first feature in one workload and falls in the other: neither says anything of the other
    contrary = np.where(one, data.latency_us, 1e4 / data.latency_us)
    opposed = Samples(features=data.features, latency_us=contrary, workloads=data.workloads)
    assert rank_quality(opposed, seed=0)["pairwise_accuracy"] < 0.2


def of_workload(points: tuple[HeldOutPoint, ...], workload: int) -> list[HeldOutPoint]:
    return [point for point in points if point.workload == workload]


def test_held_out_points_are_bounded_and_spread_over_workloads() -> None:
    data = samples(2000)
    names = data.workloads.astype("<U8")
    names[:12], names[12:19] = "few", "too few"
    mixed = Samples(features=data.features, latency_us=data.latency_us, workloads=names)
    points = judge(mixed, seed=0).points
    counts = sorted(len(of_workload(points, workload)) for workload in range(3))
    assert counts == [12, 194, 194], "small workloads give all they have, large ones share the rest"
    assert len(points) == HELD_OUT_POINTS == sum(counts)
    assert judge(mixed, seed=0).points == points
    assert judge(mixed, seed=1).points != points
    assert len(judge(samples(60), seed=0).points) == 60


def test_held_out_points_are_labels_and_what_a_model_without_their_workload_predicts() -> None:
    data = samples(100)
    slow = data.workloads == "slow"
    # latency rises with the first feature in one workload and falls in the other
    contrary = Samples(
        features=data.features,
        latency_us=np.where(slow, data.latency_us, 1e4 / data.latency_us),
        workloads=data.workloads,
    )
    judgement = judge(contrary, seed=0)
    assert judgement.figures == rank_quality(contrary, seed=0)
    labels = relative_throughput(contrary.latency_us, contrary.workloads)
    assert sorted(point.measured_log2 for point in judgement.points) == pytest.approx(sorted(labels), abs=1e-3)
    for workload in (0, 1):
        points = of_workload(judgement.points, workload)
        measured, predicted = [p.measured_log2 for p in points], [p.predicted_log2 for p in points]
        assert max(measured) == 0.0
        # Learned from the other workload, which is the other way round: nothing of this one leaked.
        assert np.corrcoef(measured, predicted)[0, 1] < -0.5


def test_one_workload_has_no_held_out_points() -> None:
    data = samples()
    one = data.workloads == "slow"
    alone = Samples(features=data.features[one], latency_us=data.latency_us[one], workloads=data.workloads[one])
    assert judge(alone, seed=0).points == ()


def test_a_stored_model_predicts_the_same_and_carries_its_samples() -> None:
    data = samples()
    model = fitted(data)
    stored = model.store(data, target_fingerprint="t", features_version=1)
    loaded = XGBCostModel.load(stored, seed=0)
    np.testing.assert_array_equal(loaded.predict(data.features), model.predict(data.features))
    back = Samples.from_npz(stored.samples)
    np.testing.assert_array_equal(back.features, data.features)
    assert back.workloads.tolist() == data.workloads.tolist()
    assert stored.training_set_sha256 == hashlib.sha256(stored.samples).hexdigest()
    assert stored.sample_count == len(data)
    assert (stored.rank_quality, stored.held_out) == (rank_quality(data, seed=0), judge(data, seed=0).points)
    plain = [asdict(point) for point in stored.held_out]
    assert json.loads(json.dumps(plain)) == plain, "plain numbers, none of NumPy"


def test_samples_with_pickled_objects_are_refused() -> None:
    import io

    buffer = io.BytesIO()
    evil = np.array([{"run": "me"}], dtype=object)
    np.savez(buffer, features=evil, latency_us=evil, workloads=evil)
    with pytest.raises(ValueError, match="pickle"):
        Samples.from_npz(buffer.getvalue())


def test_an_untrained_model_refuses_to_predict() -> None:
    with pytest.raises(ValueError, match="not trained"):
        XGBCostModel(seed=0).predict(np.zeros((1, 3), dtype=np.float32))
