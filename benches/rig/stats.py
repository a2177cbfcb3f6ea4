"""Medians with intervals that assume no distribution, and ratios within a round."""

import math
from statistics import median

CONFIDENCE = 0.95


def binomial_below(n, k):
    """P(X <= k) for X ~ Binomial(n, 1/2)."""
    return sum(math.comb(n, i) for i in range(k + 1)) / 2**n


def interval(values):
    """(low, high, confidence) of the median: the j-th smallest and j-th largest value, j as large as 95 % allows.

    The distribution-free interval of David and Nagaraja, Order Statistics (3rd ed.), section 7.1: exact for any
    continuous distribution. Fewer than six values hold no 95 % interval: (None, None, None).
    """
    ordered, n = sorted(values), len(values)
    best = None
    for j in range(1, n // 2 + 1):
        held = 1 - 2 * binomial_below(n, j - 1)
        if held < CONFIDENCE:
            break
        best = (ordered[j - 1], ordered[n - j], held)
    return best or (None, None, None)


def summary(values):
    """Median, interval and extremes of one figure over the rounds, ready for JSON."""
    low, high, held = interval(values)
    return {
        "median": median(values), "low": low, "high": high, "confidence": held,
        "min": min(values), "max": max(values), "rounds": len(values),
    }


def ratios(values, base):
    """Each round's value against the same round's base."""
    return [value / against for value, against in zip(values, base, strict=True) if against > 0]


def shown(figure, digits=2):
    """`1.03 (0.98–1.09)`, or the extremes in square brackets where the rounds are too few for an interval."""
    text = f"{figure['median']:.{digits}f}"
    if figure["low"] is not None:
        return f"{text} ({figure['low']:.{digits}f}–{figure['high']:.{digits}f})"
    if figure["rounds"] > 1:
        return f"{text} [{figure['min']:.{digits}f}–{figure['max']:.{digits}f}]"
    return text
