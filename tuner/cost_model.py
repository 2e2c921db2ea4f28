"""The cost model: one XGBoost ranker per target, over features that need no replay.

It predicts log2(best latency of the workload / latency): 0 for the best schedule known, −1 for one twice as slow, so
that rows of different workloads teach the same thing. Models are stored as UBJSON and their samples as ``.npz`` without
pickle. (TVM's own XGBModel unpickles what it loads and ignores the settings it is given.)
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xgboost
from numpy.typing import NDArray

from tuner.cost_model_store import HeldOutPoint, StoredCostModel
from tuner.records import Record
from tuner.search.features import MISSING

# A schedule 16× slower than the best teaches no more than one 64× slower.
_WORST_LABEL = -4.0
_ROUNDS = 120
# Held-out quality: samples that a workload must have, and may be judged by (pairs go quadratic); models trained for it.
MINIMUM_JUDGED = 8
_JUDGED_AT_MOST, _FOLDS = 500, 4
# Held-out points that are kept of a version: a picture shows no more, and 400 of them are 10 KB in the database.
HELD_OUT_POINTS = 400
# 0.1 s for 1,400 rows. OpenMP's threads spin at their barriers: beside busy build workers two took ten times longer.
_THREADS = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Measured candidates: ``features`` (n × d), ``latency_us`` (n), ``workloads`` (n)."""

    features: NDArray[np.float32]
    latency_us: NDArray[np.float64]
    workloads: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.latency_us)

    @staticmethod
    def of(records: Sequence[Record]) -> Samples:
        measured = [record for record in records if record.latency_us is not None and record.features]
        return Samples(
            features=np.array([record.features for record in measured], dtype=np.float32),
            latency_us=np.array([record.latency_us for record in measured], dtype=np.float64),
            workloads=np.array([record.workload for record in measured], dtype=np.str_),
        )

    def to_npz(self) -> bytes:
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, features=self.features, latency_us=self.latency_us, workloads=self.workloads.astype(np.str_)
        )
        return buffer.getvalue()

    @staticmethod
    def from_npz(data: bytes) -> Samples:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return Samples(features=arrays["features"], latency_us=arrays["latency_us"], workloads=arrays["workloads"])


def relative_throughput(latency_us: NDArray[np.float64], workloads: NDArray[np.str_]) -> NDArray[np.float64]:
    """The labels: log2(best of the workload / latency) of every sample, clipped below."""
    labels = np.zeros(len(latency_us))
    for workload in np.unique(workloads):
        rows = workloads == workload
        labels[rows] = np.log2(latency_us[rows].min() / latency_us[rows])
    return np.maximum(labels, _WORST_LABEL)


class XGBCostModel:
    """A ranker over candidate features."""

    def __init__(self, *, seed: int, booster: xgboost.Booster | None = None) -> None:
        self._seed = seed
        self._booster = booster

    def fit(self, features: NDArray[np.float32], latency_us: NDArray[np.float64], workloads: NDArray[np.str_]) -> None:
        """Train anew on these samples (n × d, n, n); fast candidates weigh more than slow ones."""
        labels = relative_throughput(latency_us, workloads)
        matrix = xgboost.DMatrix(
            features, label=labels, weight=np.exp2(labels) + 0.1, missing=MISSING, nthread=_THREADS
        )
        settings = {
            "objective": "reg:squarederror",
            "tree_method": "hist",
            "max_depth": 5,
            "eta": 0.12,
            "subsample": 0.8,
            "colsample_bynode": 0.5,
            "min_child_weight": 0.5,
            "max_bin": 64,
            "nthread": _THREADS,
            "seed": self._seed,
        }
        self._booster = xgboost.train(settings, matrix, num_boost_round=_ROUNDS)

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """log2 of the throughput relative to the best of the workload; higher is faster."""
        if self._booster is None:
            raise ValueError("the cost model was not trained yet")
        return np.asarray(self._booster.inplace_predict(features, missing=MISSING), dtype=np.float64)

    def store(self, samples: Samples, *, target_fingerprint: str, features_version: int) -> StoredCostModel:
        """This model as a version to keep, with its quality on held-out workloads of the same samples."""
        if self._booster is None:
            raise ValueError("the cost model was not trained yet")
        npz = samples.to_npz()
        judgement = judge(samples, seed=self._seed)
        return StoredCostModel(
            target_fingerprint=target_fingerprint,
            features_version=features_version,
            model=bytes(self._booster.save_raw("ubj")),
            samples=npz,
            sample_count=len(samples),
            training_set_sha256=hashlib.sha256(npz).hexdigest(),
            rank_quality=judgement.figures,
            held_out=judgement.points,
        )

    @staticmethod
    def load(stored: StoredCostModel, *, seed: int) -> XGBCostModel:
        booster = xgboost.Booster()
        booster.load_model(bytearray(stored.model))
        return XGBCostModel(seed=seed, booster=booster)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The ``figures`` of `rank_quality`, and at most `HELD_OUT_POINTS` of the ``points`` that they were taken from."""

    figures: dict[str, float]
    points: tuple[HeldOutPoint, ...]


def rank_quality(samples: Samples, *, seed: int) -> dict[str, float]:
    """Quality on workloads that the model did not see, each left out once in one of a few folds.

    ``pairwise_accuracy`` is the share of pairs of one workload that are ranked rightly; ``top_1`` and ``top_5`` are the
    best latency of a workload ÷ the best latency among the first one or five ranked (1 is perfect). Means over the
    workloads with at least eight samples; empty when there are fewer than two such.
    """
    return judge(samples, seed=seed).figures


def judge(samples: Samples, *, seed: int) -> Judgement:
    """`rank_quality` together with points to look at, from the same models."""
    names, counts = np.unique(samples.workloads, return_counts=True)
    judged = names[counts >= MINIMUM_JUDGED]
    if len(judged) < 2:
        return Judgement(figures={}, points=())
    order = np.random.default_rng(seed).permutation(judged)
    predicted = np.zeros(len(samples))
    for held_out in np.array_split(order, min(_FOLDS, len(order))):
        left_out = np.isin(samples.workloads, held_out)
        model = XGBCostModel(seed=seed)
        model.fit(samples.features[~left_out], samples.latency_us[~left_out], samples.workloads[~left_out])
        predicted[left_out] = model.predict(samples.features[left_out])
    rows = [np.flatnonzero(samples.workloads == workload) for workload in order]
    scores = [ranking_scores(samples.latency_us[each], predicted[each]) for each in rows]
    return Judgement(
        figures={name: float(np.mean([score[name] for score in scores])) for name in scores[0]},
        points=_held_out_points(samples, predicted, rows, seed=seed),
    )


def _held_out_points(
    samples: Samples, predicted: NDArray[np.float64], rows: list[NDArray[np.intp]], *, seed: int
) -> tuple[HeldOutPoint, ...]:
    """A sample of the rows of every workload. Workloads take turns: small ones give all they have, large ones share
    the rest."""
    rng = np.random.default_rng(seed)
    turns = sorted(
        (turn, workload, int(row))
        for workload, each in enumerate(rows)
        for turn, row in enumerate(rng.permutation(each)[:HELD_OUT_POINTS])
    )
    chosen = sorted((workload, row) for _, workload, row in turns[:HELD_OUT_POINTS])
    labels = relative_throughput(samples.latency_us, samples.workloads)
    return tuple(
        HeldOutPoint(workload=workload, measured_log2=_rounded(labels[row]), predicted_log2=_rounded(predicted[row]))
        for workload, row in chosen
    )


def _rounded(value: float) -> float:
    """Three decimals of a log2: 0.04 % of a latency. Never −0."""
    return round(float(value), 3) + 0.0


def ranking_scores(latency_us: NDArray[np.float64], predicted: NDArray[np.float64]) -> dict[str, float]:
    """The three figures of `rank_quality` for one workload: its latencies (n) and their predictions (n, higher is
    faster)."""
    order = np.argsort(-predicted)
    return {
        "pairwise_accuracy": _pairwise_accuracy(latency_us[order]),
        "top_1": float(latency_us.min() / latency_us[order[0]]),
        "top_5": float(latency_us.min() / latency_us[order[:5]].min()),
    }


def _pairwise_accuracy(latency_us: NDArray[np.float64]) -> float:
    """The share of pairs that are in the right order in a list that should be sorted, fastest first."""
    sampled = latency_us[:: -(-len(latency_us) // _JUDGED_AT_MOST)]
    first, second = np.triu_indices(len(sampled), 1)
    return float((sampled[first] <= sampled[second]).mean())
