"""The rows of the benchmark, and the ratios that we aim at."""

from __future__ import annotations

import math
from typing import Any

Goals = tuple[float, float, float]  # our time over eager PyTorch's: eager; compiled on one thread, on two cores
NO_GOALS = (math.inf, math.inf, math.inf)
MEANS = (0.68, 0.41, 0.46)  # the geometric means over the batch sizes


class Row:
    """One line of the table: what is measured, and the ratios that we aim at."""

    def __init__(self, title: str, kind: str, model: str, size: int, goals: Goals, everybody: bool = False) -> None:
        self.title, self.kind, self.model, self.size, self.goals = title, kind, model, size, goals
        self.everybody = everybody  # else against PyTorch only

    @property
    def job(self) -> dict[str, Any]:
        return {"kind": self.kind, "model": self.model, "size": self.size}


TRAIN = {
    1: (0.85, 0.30, 0.32),
    8: (0.75, 0.36, 0.42),
    32: (0.65, 0.40, 0.50),
    64: (0.62, 0.43, 0.50),
    128: (0.62, 0.45, 0.50),
    256: (0.62, 0.45, 0.50),
    512: (0.70, 0.48, 0.50),
}
TANH = (0.70, 0.48, 0.55)
ROWS = [
    *(
        Row(f"train LeNet-5, ReLU/max, batch {n}", "train", "lenet", n, goals, n in (8, 64, 256))
        for n, goals in TRAIN.items()
    ),
    *(Row(f"train LeNet-5, tanh/average, batch {n}", "train", "lenet tanh/avg", n, TANH) for n in TRAIN),
    Row("train VGG-like on 32x32x3, batch 64", "train", "vgg", 64, (1.5, 1.45, 1.7)),
    Row("train MLP 784-512-512-10, batch 128", "train", "mlp", 128, (1.13, 1.05, 1.2)),
    *(Row(f"train LSTM, 16 sequences of {n}", "train", f"LSTM {n}", 16, NO_GOALS) for n in (16, 64, 256)),
    Row("train GRU, 16 sequences of 64", "train", "GRU 64", 16, NO_GOALS),
    Row("inference LeNet-5, batch 1", "infer", "lenet", 1, (1.0, 0.28, 0.30)),
    *(Row(f"inference LeNet-5, batch {n}", "infer", "lenet", n, (1.0, 1.0, 1.0)) for n in (64, 1024)),
    Row("record and differentiate an op of 4 elements", "record", "", 64, (1.0, 1.0, 1.0)),
]
QUICK = [row for row in ROWS if row.size in (8, 64) and row.model != "vgg"]
