"""Scatter of keypoints and angles over variants of the same image, and the fit of λ to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from scripts.picture_variants import MIRRORED
from service.core.angles import (
    MEASUREMENTS,
    AngleOptions,
    Measurement,
    Neutral,
    Side,
    Status,
    Thresholds,
    measure,
)
from service.core.angles.definitions import Ray
from service.core.angles.noise import SCORES, correlations, kind_of, mixing, side_of
from service.core.angles.uncertainty import prior_px, slopes, std_errors_deg
from service.core.poses import Floats, Poses
from service.core.skeleton.template import Skeleton

Doubles = NDArray[np.float64]
Table = Mapping[str, tuple[float, ...]]
Factors = Mapping[str, float]
Correlations = Mapping[tuple[str, str], tuple[float, float]]

BODY = slice(5, 17)  # COCO's shoulders to ankles: they come first in the skeletons of bodies
GOAL_ERRORS = 2.0  # standard errors, within which GOAL_PERCENT of the values lie
GOAL_PERCENT = 95
LARGEST = 3.0  # λ
MIN_VALUES = 10  # of one angle with status OK; with fewer its scatter does not count
_MIN_ANGLES = 60  # of one measurement, below which the fit passes over it
_MIN_PAIRS = 400  # of two kinds, below which their correlation counts as none
_LEAST_CORRELATION = 0.1  # what is nearer to 0 is noise of the estimate
_CLIPPED = 3.0  # distances in standard deviations, so that single leaps do not make a correlation
_MIN_KEYPOINTS = 300  # of one kind and score: 95th percentiles of fewer depend on single persons
_SURE = 0.5
_EDGES = (0.5, 0.7, 0.85, 0.95)  # between the scores that the columns of a table stand for
_FACTORS = (0.25, 1.6)  # range of the correction by the angles
_STEPS = (0.4, 0.2, 0.1)

_ANY_ERROR = replace(Thresholds(), max_std_error_deg=1e6)
_SIDES: tuple[Side, Side] = ("left", "right")
# Without a baseline the standard error holds that of the assumed neutral head, which does not scatter.
_NEUTRAL = {(name, side): Neutral(0.0) for name in MEASUREMENTS for side in _SIDES}


@dataclass(frozen=True, eq=False)
class Scattered:
    """One person in V variants of an image, or frames of a second.

    Attributes:
        source: name of the file, `#`, and of the person in it; of a video also `@` and the second.
        model: that found the person.
        keypoints: (V, K, 3) px of the image and score; NaN where the person was not found.
        boxes: (V, 4) x1, y1, x2, y2 px; NaN likewise.
        size_wh: of the image, px.
    """

    source: str
    model: str
    keypoints: Floats
    boxes: Floats
    size_wh: tuple[int, int]

    @property
    def still(self) -> bool:
        """Whether these are frames of a second of a video, and not variants of an image."""
        return "@" in self.source.rpartition("#")[2]

    @property
    def poses(self) -> Poses:
        """The person in the variants that show it."""
        seen = np.isfinite(self.boxes).all(axis=1)
        scores = np.ones(int(seen.sum()), np.float32)
        return Poses(self.boxes[seen], scores, np.nan_to_num(self.keypoints[seen]))


@dataclass(frozen=True, eq=False)
class AngleScatter:
    """The angles of one person in V variants: M measurements, left and right, P keypoints.

    Attributes:
        apart_deg: (V, M, 2) from the median of the variants.
        errors_deg: (V, M, 2) standard errors as the service gives them.
        degrees: (V, M, 2)
        degraded: (V, M, 2) whether the status is DEGRADED.
        ok: (V, M, 2) whether the status is OK, the size of the standard error aside.
        columns: (P,) place of each keypoint in the skeleton.
        kinds: (P,) row of the table that each keypoint has.
        scores: (V, P)
        priors_px: (V, P) spread among annotators.
        floor_px: (V,)
        names: (P,)
        slopes: (R, P) complex, how the R values with status OK turn with each keypoint, in the order of `ok`.
        mixing: (P, P) as in `CompiledAngles`.
    """

    degrees: Doubles
    degraded: NDArray[np.bool_]
    apart_deg: Doubles
    errors_deg: Doubles
    ok: NDArray[np.bool_]
    columns: tuple[int, ...]
    kinds: tuple[str, ...]
    scores: Doubles
    priors_px: Doubles
    floor_px: Doubles
    names: tuple[str, ...]
    slopes: NDArray[np.complex128]
    mixing: Doubles

    def errors_with(self, table: Table, factors: Factors | None = None) -> Doubles:
        """(V, M, 2) standard errors with another table of λ and factors; NaN where the status is not OK."""
        lambdas = np.stack(
            [np.interp(self.scores[:, i], SCORES, table[kind]) for i, kind in enumerate(self.kinds)], axis=1
        )
        spread = np.hypot(lambdas * self.priors_px, self.floor_px[:, None])
        errors = np.full(self.ok.shape, np.nan)
        errors[self.ok] = std_errors_deg(self.slopes, spread[np.nonzero(self.ok)[0]], self.mixing)
        scale = np.array([(factors or {}).get(name, 1.0) for name in MEASUREMENTS], np.float64)
        return np.asarray(errors * scale[:, None], np.float64)

    def correlated(self, table: Correlations) -> AngleScatter:
        """The same with other correlations of the keypoints."""
        return replace(self, mixing=mixing(correlations(table, self.names)))


def angle_scatter(one: Scattered, skeleton: Skeleton) -> AngleScatter:
    """The angles of a person in all variants, against their median."""
    poses, names = one.poses, tuple(MEASUREMENTS)
    options = AngleOptions(_ANY_ERROR, baseline=_NEUTRAL, size_wh=one.size_wh)
    found = measure(poses, skeleton, names, options)
    work = found.workings
    prior, size = prior_px(poses, work.found, work.turned, work.plan)
    supplied = np.flatnonzero(work.plan.columns >= 0)
    ok = found.statuses == Status.OK
    with np.errstate(all="ignore"):  # of angles without a value
        turns = slopes(work.found, work.chosen, work.plan).reshape(*ok.shape, -1)
    line = Thresholds()
    return AngleScatter(
        degrees=found.degrees,
        degraded=found.statuses == Status.DEGRADED,
        apart_deg=(found.degrees - _median(found.degrees, axis=0) + 180) % 360 - 180,
        errors_deg=found.std_errors_deg,
        ok=ok,
        columns=tuple(work.plan.columns[supplied].tolist()),
        kinds=tuple(kind_of(work.plan.names[place]) for place in supplied),
        scores=work.found.point_scores[:, supplied],
        priors_px=prior[:, supplied],
        floor_px=np.maximum(line.spread_floor_px, line.spread_floor_fraction * size),
        names=tuple(work.plan.names[place] for place in supplied),
        slopes=turns[ok][:, supplied],
        mixing=work.plan.mixing[:, supplied],
    )


def _median(values: Doubles | Floats, axis: int) -> Doubles:
    """Median of what is not NaN; NaN where everything is."""
    median = np.ma.median(np.ma.masked_invalid(values), axis=axis)  # type: ignore[no-untyped-call]
    return np.asarray(np.ma.filled(median.astype(np.float64), np.nan), np.float64)


def in_errors(
    scatters: Sequence[AngleScatter],
    errors: Sequence[Doubles] | None = None,
    largest_deg: float = Thresholds().max_std_error_deg,
) -> dict[str, Doubles]:
    """Distances from the median in standard errors, of all values with status OK, by measurement.

    Args:
        errors: (V, M, 2) of each person; None for those of the service.
        largest_deg: standard errors above it are LOW_RESOLUTION, and not OK.
    """
    values = in_errors_by_person(scatters, errors, largest_deg)
    return {name: np.concatenate([np.zeros(0), *parts]) for name, parts in values.items()}


def in_errors_by_person(
    scatters: Sequence[AngleScatter],
    errors: Sequence[Doubles] | None = None,
    largest_deg: float = Thresholds().max_std_error_deg,
) -> dict[str, list[Doubles]]:
    """The same, an array for each person that has values; both sides are one person's."""
    values: dict[str, list[Doubles]] = {name: [] for name in MEASUREMENTS}
    for number, one in enumerate(scatters):
        error = one.errors_deg if errors is None else errors[number]
        for m, name in enumerate(MEASUREMENTS):
            ok = one.ok[:, m] & (error[:, m] <= largest_deg)
            ok &= ok.sum(axis=0) >= MIN_VALUES
            if ok.any():
                values[name].append(np.abs(one.apart_deg[:, m][ok]) / error[:, m][ok])
    return values


def share_within(persons: Sequence[Doubles]) -> tuple[float, float, float]:
    """Share of the values within `GOAL_ERRORS` standard errors, and its 95 % interval.

    Wilson's binomial interval, for as many independent values as are worth the same: the values of one person
    have much in common. Where all are within, or none, nothing says how much; then each person counts as one.

    Args:
        persons: values of each person, in standard errors; one person at least.
    """
    inside = np.array([(values <= GOAL_ERRORS).sum() for values in persons], np.float64)
    counts = np.array([len(values) for values in persons], np.float64)
    share = float(inside.sum() / counts.sum())
    between = float(((inside - share * counts) ** 2).sum())
    n = float(counts.sum())
    if share in (0.0, 1.0):
        n = float(len(persons))
    elif between:
        n = min(max(n**2 * share * (1 - share) / between, float(len(persons))), n)
    z = 1.96
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * float(np.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2))
    return share, max(centre - half, 0.0), min(centre + half, 1.0)


def against_mirrored(
    persons: Sequence[Scattered],
    scatters: Sequence[AngleScatter],
    errors: Sequence[Doubles] | None = None,
    largest_deg: float = Thresholds().max_std_error_deg,
) -> dict[str, Doubles]:
    """How far the angles of an image and of the mirrored one are apart, in standard errors of the difference.

    Both are single draws, so that the difference has the variance of both. Only values with status OK in both
    images count, by measurement; persons of still seconds have no mirrored image.

    Args:
        errors: (V, M, 2) of each person; None for those of the service.
    """
    values: dict[str, list[float]] = {name: [] for name in MEASUREMENTS}
    for number, (person, one) in enumerate(zip(persons, scatters, strict=True)):
        seen = np.isfinite(person.boxes[:, 0])
        if person.still or not (seen[0] and seen[MIRRORED]):
            continue
        pair = np.array([0, seen[:MIRRORED].sum()])  # their places among the variants that show the person
        error = (one.errors_deg if errors is None else errors[number])[pair]
        apart = np.abs((one.degrees[pair[0]] - one.degrees[pair[1]] + 180) % 360 - 180)
        both = np.all(one.ok[pair] & (error <= largest_deg), axis=0)
        for m, name in enumerate(MEASUREMENTS):
            values[name] += (apart[m] / np.hypot(error[0, m], error[1, m]))[both[m]].tolist()
    return {name: np.array(parts, np.float64) for name, parts in values.items()}


def same_direction(scatters: Sequence[AngleScatter]) -> dict[str, Doubles]:
    """Of the DEGRADED values of a signed angle whose median is clear of 0, whether each has its sign."""
    values: dict[str, list[Doubles]] = {name: [] for name in MEASUREMENTS}
    for one in scatters:
        median = _median(one.degrees, axis=0)
        for m, name in enumerate(MEASUREMENTS):
            for side in (0, 1):
                degraded = one.degraded[:, m, side]
                error = one.errors_deg[degraded, m, side]
                clear = np.abs(median[m, side]) > GOAL_ERRORS * error
                same = np.sign(one.degrees[degraded, m, side]) == np.sign(median[m, side])
                values[name].append(same[clear].astype(np.float64))
    return {name: np.concatenate(parts) if parts else np.zeros(0) for name, parts in values.items()}


def fit_correlations(persons: Sequence[Scattered], scatters: Sequence[AngleScatter]) -> Correlations:
    """Correlation of the scatter of every two kinds of keypoints, on the same side and on opposite ones.

    Of distances from the median of the variants along one axis, each in the keypoint's own standard deviation
    in that person, so that every person counts alike.
    """
    products: dict[tuple[str, str], tuple[list[Doubles], list[Doubles]]] = {}
    for one, scatter in zip(persons, scatters, strict=True):
        apart = _apart_in_deviations(one, scatter.columns)
        for i, j in combinations(range(len(scatter.columns)), 2):
            opposite = {side_of(scatter.names[i]), side_of(scatter.names[j])} == {"left", "right"}
            first, second = sorted((scatter.kinds[i], scatter.kinds[j]))
            both = apart[:, [i, j]]
            both = both[np.isfinite(both).all(axis=(1, 2))].transpose(1, 0, 2).reshape(2, -1)
            products.setdefault((first, second), ([], []))[opposite].append(both)
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for pair, sides in products.items():
        same, other = (_correlation(np.concatenate(parts, axis=1)) if parts else 0.0 for parts in sides)
        if same or other:
            found[pair] = same, other
    return found


def _apart_in_deviations(one: Scattered, columns: Sequence[int]) -> Doubles:
    """(V, P, 2) distances of sure keypoints from their median, clipped; NaN elsewhere."""
    keypoints = one.poses.keypoints[:, columns].astype(np.float64)
    sure = keypoints[..., 2:] > _SURE
    xy = np.where(sure & (sure.sum(axis=0) >= MIN_VALUES), keypoints[..., :2], np.nan)
    apart = xy - _median(xy, axis=0)
    deviation = np.sqrt(np.ma.masked_invalid(apart**2).mean(axis=(0, 2), keepdims=True).filled(1.0))
    return np.asarray(np.clip(apart / np.maximum(deviation, 1e-3), -_CLIPPED, _CLIPPED), np.float64)


def _correlation(pairs: Doubles) -> float:
    if pairs.shape[1] < _MIN_PAIRS:
        return 0.0
    found = round(float(np.asarray(np.corrcoef(pairs))[0, 1]), 2)
    return found if abs(found) >= _LEAST_CORRELATION else 0.0


def fit(
    persons: Sequence[tuple[Scattered, Skeleton]], known: Correlations | None = None
) -> dict[str, tuple[float, ...]]:
    """The table of λ that fits these persons.

    First every kind of keypoint alone: λ at which 95 % of its distances from the median, along each axis,
    lie within two standard deviations. Then one factor for each kind, by
    coordinate descent, so that the same is true of the angles.

    Args:
        known: correlations of the keypoints; None for those of the service.
    """
    scatters = [angle_scatter(one, skeleton) for one, skeleton in persons]
    if known is not None:
        scatters = [one.correlated(known) for one in scatters]
    table = _of_keypoints(persons, scatters)
    factors = dict.fromkeys(table, 1.0)
    best = _loss(scatters, table, factors)
    for step in _STEPS:
        moved = True
        while moved:
            moved = False
            for kind in factors:
                for change in (np.exp(step), np.exp(-step)):
                    tried = {**factors, kind: float(np.clip(factors[kind] * change, *_FACTORS))}
                    loss = _loss(scatters, table, tried)
                    if loss < best - 1e-3:
                        factors, best, moved = tried, loss, True
    return _scaled(table, factors)


def fit_factors(scatters: Sequence[AngleScatter], errors: Sequence[Doubles]) -> dict[str, float]:
    """What brings the 95th percentile of a measurement to two standard errors.

    Only where the interval of the share that is within them excludes 95 %: else it would describe the few
    persons that were there. Measurements of the same rays in the same view have one factor.

    Args:
        scatters: of all persons, in all models.
        errors: (V, M, 2) of each of them, without factors.
    """
    values = [in_errors([one], [error], np.inf) for one, error in zip(scatters, errors, strict=True)]
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, measurement in MEASUREMENTS.items():
        groups.setdefault(_geometry(measurement), []).append(name)
    factors: dict[str, float] = {}
    for names in groups.values():
        # the same values by several names are one person's all the same
        persons = [np.concatenate([one[name] for name in names]) for one in values]
        persons = [one for one in persons if len(one)]
        if not persons:
            continue
        _, low, high = share_within(persons)
        if not low <= GOAL_PERCENT / 100 <= high:
            reached = float(np.percentile(np.concatenate(persons), GOAL_PERCENT))
            factors |= dict.fromkeys(names, round(reached / GOAL_ERRORS, 2))
    return {name: factors[name] for name in MEASUREMENTS if name in factors}


def _geometry(measurement: Measurement) -> tuple[object, ...]:
    """The view, and the rays of the first choice, whichever way they point."""
    angle = measurement.left.choices[0].angle
    rays = [angle.moving, angle.reference]
    lines = [frozenset((ray, ray.reversed())) if isinstance(ray, Ray) else "vertical" for ray in rays]
    return measurement.view, frozenset(lines)


def _scaled(table: Table, factors: Mapping[str, float]) -> dict[str, tuple[float, ...]]:
    return {kind: tuple(min(factors[kind] * value, LARGEST) for value in row) for kind, row in table.items()}


def _loss(scatters: Sequence[AngleScatter], table: Table, factors: Mapping[str, float]) -> float:
    """Squared logarithms of how far the 95th percentiles are from two standard errors, over measurements.

    Errors that are too small count half as much again: they claim what is not so.
    """
    scaled = _scaled(table, factors)
    # no limit of the errors here, or large ones would hide what they are to describe
    values = in_errors(scatters, [one.errors_with(scaled) for one in scatters], np.inf)
    reached = [np.percentile(one, GOAL_PERCENT) for one in values.values() if len(one) >= _MIN_ANGLES]
    missed = np.log(np.maximum(reached, 0.1) / GOAL_ERRORS)
    # a factor that no measurement needs stays at 1
    quiet = 0.01 * sum(np.log(factor) ** 2 for factor in factors.values())
    return float(np.sum(np.where(missed > 0, 1.5, 1.0) * missed**2) + quiet)


def _of_keypoints(
    persons: Sequence[tuple[Scattered, Skeleton]], scatters: Sequence[AngleScatter]
) -> dict[str, tuple[float, ...]]:
    distances: dict[str, list[tuple[Doubles, Doubles]]] = {}
    for (one, _), scatter in zip(persons, scatters, strict=True):
        keypoints = one.poses.keypoints.astype(np.float64)
        keypoints[(keypoints == 0).all(axis=2)] = np.nan
        apart = keypoints[..., :2] - _median(keypoints[..., :2], axis=0)
        for place, (column, kind) in enumerate(zip(scatter.columns, scatter.kinds, strict=True)):
            share = np.abs(apart[:, column]) / scatter.priors_px[:, place, None]
            distances.setdefault(kind, []).append((keypoints[:, column, 2], share))
    rows = {kind: _by_score(parts) for kind, parts in distances.items()}
    steps = _steps(list(rows.values()))
    return {kind: _filled(row, steps) for kind, row in rows.items()}


def _by_score(parts: Sequence[tuple[Doubles, Doubles]]) -> tuple[float, ...]:
    """λ in every column, never falling with the score; NaN where too few keypoints have such a score."""
    scores = np.concatenate([score for score, _ in parts])
    shares = np.concatenate([share for _, share in parts])
    columns = np.digitize(scores, _EDGES)
    row: list[float] = []
    for column in reversed(range(len(SCORES))):
        chosen = (columns == column) & np.isfinite(shares).all(axis=1)
        least = max((value for value in row if np.isfinite(value)), default=0.0)
        enough = chosen.sum() >= _MIN_KEYPOINTS
        here = np.percentile(shares[chosen], GOAL_PERCENT) / GOAL_ERRORS if enough else np.nan
        row.append(float(np.clip(here, least, LARGEST)))
    return tuple(reversed(row))


def _steps(rows: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """Typical ratio of every column to the next better one, over all kinds that have both."""
    ratios = np.array([[a / b for a, b in pairwise(row)] for row in rows])
    return tuple(1.0 if np.isnan(step) else float(step) for step in _median(ratios, axis=0))


def _filled(row: tuple[float, ...], steps: tuple[float, ...]) -> tuple[float, ...]:
    """The row with what is missing from its neighbours, by the ratios of the other kinds."""
    filled = list(row)
    if not np.isfinite(filled).any():
        return (1.0,) * len(row)
    for column in range(1, len(row)):  # downward in λ, from worse scores
        if np.isnan(filled[column]) and np.isfinite(filled[column - 1]):
            filled[column] = filled[column - 1] / steps[column - 1]
    for column in reversed(range(len(row) - 1)):
        if np.isnan(filled[column]):
            filled[column] = min(filled[column + 1] * steps[column], LARGEST)
    return tuple(np.maximum.accumulate(filled[::-1])[::-1].tolist())  # never falling with the score
