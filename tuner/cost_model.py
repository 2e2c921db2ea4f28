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

from tuner.cost_model_store import StoredCostModel
from tuner.records import Record
from tuner.search.features import MISSING

# A schedule 16× slower than the best teaches no more than one 64× slower.
_WORST_LABEL = -4.0
_ROUNDS = 120
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
        """This model as a version to keep, with its quality on held-out records of the same samples."""
        if self._booster is None:
            raise ValueError("the cost model was not trained yet")
        npz = samples.to_npz()
        return StoredCostModel(
            target_fingerprint=target_fingerprint,
            features_version=features_version,
            model=bytes(self._booster.save_raw("ubj")),
            samples=npz,
            sample_count=len(samples),
            training_set_sha256=hashlib.sha256(npz).hexdigest(),
            rank_quality=rank_quality(samples, seed=self._seed),
        )

    @staticmethod
    def load(stored: StoredCostModel, *, seed: int) -> XGBCostModel:
        booster = xgboost.Booster()
        booster.load_model(bytearray(stored.model))
        return XGBCostModel(seed=seed, booster=booster)


def rank_quality(samples: Samples, *, seed: int) -> dict[str, float]:
    """Quality on a fifth of the records that the model did not see: ``pairwise_accuracy`` (share of pairs of one
    workload ranked rightly) and ``top_1`` (best latency of the workload's held-out records ÷ latency of the one ranked
    first, averaged; 1 is perfect). Empty when there are too few samples to hold any out."""
    rng = np.random.default_rng(seed)
    held_out = rng.random(len(samples)) < 0.2
    if held_out.sum() < 8 or (~held_out).sum() < 16:
        return {}
    split = [
        Samples(features=samples.features[rows], latency_us=samples.latency_us[rows], workloads=samples.workloads[rows])
        for rows in (~held_out, held_out)
    ]
    model = XGBCostModel(seed=seed)
    model.fit(split[0].features, split[0].latency_us, split[0].workloads)
    scores = model.predict(split[1].features)
    right = pairs = 0
    firsts = []
    for workload in np.unique(split[1].workloads):
        rows = np.flatnonzero(split[1].workloads == workload)
        if len(rows) < 2:
            continue
        latency, score = split[1].latency_us[rows], scores[rows]
        upper = np.triu_indices(len(rows), 1)
        slower = latency[upper[0]] > latency[upper[1]]
        right += int((slower == (score[upper[0]] < score[upper[1]])).sum())
        pairs += len(upper[0])
        firsts.append(float(latency.min() / latency[int(np.argmax(score))]))
    return {"pairwise_accuracy": right / pairs, "top_1": float(np.mean(firsts))} if pairs else {}
