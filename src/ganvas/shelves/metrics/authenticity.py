"""How many generated samples are new: authenticity (Alaa et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ganvas.parts import metric
from ganvas.shelves.metrics.arrays import Features, slack_of
from ganvas.shelves.metrics.nearest_neighbours import distances_to_nearest, features_of_three, nearest_neighbours
from ganvas.types import Evidence, Metric

_ALARMING = -30.0  # percentage points


@metric("authenticity", paper="Alaa et al. 2022")
class Authenticity(Metric):
    """AuthPct: percentage of generated samples further from their nearest training sample than its own neighbour is.

    A sample y is authentic where |y - t| > |t - t'|, with t the training sample nearest to y and t' the other training
    sample nearest to t. `authpct`, in percent, higher is better. Its value for fresh data depends on the data, so
    `authpct_gap` takes that of the held-out reference off: about 0 for an honest model, far below 0 for one that
    copies. Alarm: a gap below -30, which is 4 standard deviations for fresh samples where both sets hold 100.
    """

    needs = frozenset({"training:features", "real:features", "fake:features"})
    lower_is_better: Mapping[str, bool] = {"authpct": False, "authpct_gap": False}
    limits: Mapping[str, tuple[float, float]] = {"authpct": (0, 100), "authpct_gap": (-100, 100)}

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        training, held_out, fake = features_of_three(evidence)
        percentage = authpct(training, fake)
        return {"authpct": percentage, "authpct_gap": percentage - authpct(training, held_out)}

    def alarm(self, values: Mapping[str, float]) -> str:
        if values["authpct_gap"] >= _ALARMING:
            return ""
        return (
            f"{100 - values['authpct']:.0f} % of the samples are not new, {-values['authpct_gap']:.0f} points more "
            "than of held-out images: they lie nearer to a training image than its own neighbour does"
        )


def authpct(training: Features, fake: Features) -> float:
    """Percentage of features `fake` (M, D) that are authentic against `training` (N, D), N >= 2; in [0, 100].

    A sample that is as far from its training sample as that one's neighbour, within rounding, is not authentic.

    Raises
    ------
    UsageError : fewer than two training samples, no generated ones, or different dimensions.
    DataError : NaN or infinite values.
    """
    nearest, distance = nearest_neighbours(fake, training)
    apart = distances_to_nearest(training, training, among_themselves=True)  # (N,)
    slack = slack_of(max(len(distance), len(apart)))
    return float(100 * np.mean(distance[:, 0] > apart[nearest[:, 0]] * (1 + slack)))
