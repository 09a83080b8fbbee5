"""Exact intervals of what was counted."""

from __future__ import annotations

SURE = 0.95
"""Confidence of the intervals."""


def rate_interval(count: int, hours: float, sure: float = SURE) -> tuple[float, float]:
    """The exact interval of a rate per hour, by what was counted in some hours (Garwood 1936)."""
    from scipy.special import gammaincinv

    low = float(gammaincinv(count, (1 - sure) / 2)) if count else 0.0
    return low / hours, float(gammaincinv(count + 1, (1 + sure) / 2)) / hours


def share_interval(count: int, n: int, sure: float = SURE) -> tuple[float, float]:
    """The exact interval of a share, by count of n (Clopper and Pearson 1934)."""
    from scipy.special import betaincinv

    low = float(betaincinv(count, n - count + 1, (1 - sure) / 2)) if count else 0.0
    return low, float(betaincinv(count + 1, n - count, (1 + sure) / 2)) if count < n else 1.0
