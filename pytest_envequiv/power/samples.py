"""Whether two samples are of one distribution, for tests on many elements at a tiny level."""

from __future__ import annotations

import numpy as np
from scipy import stats

FEW = 64  # distinct values up to which a sample is counted, not ranked
ULPS = 8  # of the largest value: what rounding alone may do
RARE = 10  # values seen fewer times than this in both samples together are counted as one


def unlike(a: np.ndarray, b: np.ndarray) -> float:
    """The p-value of two samples (n,) and (m,) being of one distribution: by counts where there are few values, else by
    ranks, by the numbers beyond the other's ends, and by the values that are repeated. NaN is a value of its own."""
    a, b = _numbers(a), _numbers(b)
    if a.shape == b.shape and (a == b).all():
        return 1.0
    values, index = np.unique(np.concatenate([a, b]), return_inverse=True)
    if len(values) == 1:
        return 1.0
    counts = np.stack([np.bincount(part, minlength=len(values)) for part in (index[: len(a)], index[len(a) :])])
    if len(values) <= FEW:
        return _by_counts(counts)
    repeated = counts.sum(0) > 0.005 * counts.sum()
    by_value = np.concatenate([counts[:, repeated], counts[:, ~repeated].sum(1, keepdims=True)], 1)
    ranks = stats.ks_2samp(a, b, method="asymp").pvalue
    return min(1.0, 3 * min(float(ranks), _beyond(a, b), _by_counts(by_value) if repeated.any() else 1.0))


def _numbers(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64).ravel()
    return np.where(np.isnan(values), np.finfo(np.float64).max, values)


def _by_counts(counts: np.ndarray) -> float:
    """counts: (2, values)."""
    rare = counts.sum(0) < RARE
    pooled = np.concatenate([counts[:, ~rare], counts[:, rare].sum(1, keepdims=True)], 1)
    pooled = pooled[:, pooled.sum(0) > 0]
    return float(stats.chi2_contingency(pooled, correction=False).pvalue) if pooled.shape[1] > 1 else 1.0


def _beyond(a: np.ndarray, b: np.ndarray) -> float:
    """That k of the pooled numbers at one end are all of one sample has the chance share**k."""
    found = 1.0
    for mine, other in ((a, b), (b, a)):
        share = len(mine) / (len(mine) + len(other))
        for count in (int((mine > other.max()).sum()), int((mine < other.min()).sum())):
            found = min(found, 4 * share**count)
    return found


def different(a: dict[str, np.ndarray], b: dict[str, np.ndarray], alpha: float) -> tuple[str, str] | None:
    """The first field, and why, in which two samples of rows (name -> (B, ...)) differ: each element alone, then pairs
    of elements by their sums and differences. None if none does at level ``alpha`` over all tests. Values that differ
    by rounding only count as one."""
    elements = [(name, i) for name in a for i in range(int(np.prod(a[name].shape[1:])))]

    def of(rows: dict[str, np.ndarray], element: tuple[str, int]) -> np.ndarray:
        name, i = element
        return np.asarray(rows[name].reshape(len(rows[name]), -1)[:, i], np.float64)

    columns = [_merged(of(a, e), of(b, e), a[e[0]].dtype) for e in elements]
    vary = [k for k, (x, y) in enumerate(columns) if len(np.unique(np.concatenate([x[:1000], y[:1000]]))) > 1]
    pairs = [(i, j) for n, i in enumerate(vary) for j in vary[n + 1 :]]
    pairs = [pairs[k] for k in np.linspace(0, len(pairs) - 1, min(len(pairs), 100)).astype(int)]
    level = alpha / (len(elements) + 2 * len(pairs) + 1)
    for (name, _), (x, y) in zip(elements, columns, strict=True):
        p = unlike(x, y)
        if p < level:
            return name, f"another distribution, p = {p:.1g}"
    ranked = {k: _scaled(*columns[k]) for k in {k for pair in pairs for k in pair}}
    for i, j in pairs:
        for sign in (1, -1):
            p = unlike(*(u + sign * v for u, v in zip(ranked[i], ranked[j], strict=True)))
            if p < level:
                return elements[i][0], f"another joint distribution with {elements[j][0]}, p = {p:.1g}"
    return None


def _merged(x: np.ndarray, y: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Both samples, where pooled neighbours that are a few units in the last place apart have become one value."""
    values, index = np.unique(np.concatenate([x, y]), return_inverse=True)
    if dtype.kind == "f":
        near = ULPS * np.finfo(np.float32).eps * np.abs(values[np.isfinite(values)]).max(initial=0)
        with np.errstate(invalid="ignore"):
            begins = np.concatenate([[True], ~(np.diff(values) <= near)])
        values = values[begins][np.cumsum(begins) - 1]
    return values[index[: len(x)]], values[index[len(x) :]]


def _scaled(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both samples on the common scale of their pooled standard deviation."""
    both = np.concatenate([x, y])
    both = both[np.isfinite(both)]
    centre, spread = (both.mean(), both.std()) if len(both) else (0.0, 1.0)
    one, other = (np.round((v - centre) / (spread or 1.0), 9) for v in (x, y))
    return one, other
