"""Numbers with the digits that their standard errors justify, and no more."""

from __future__ import annotations

import math

from aliquot.types import Metric

_MINUS = "\N{MINUS SIGN}"
_MOST_DECIMALS = 9


def decimals(value: float, stderr: float = math.nan) -> int:
    """Return the number of meaningful decimals of a number, at least one.

    The last decimal is the first digit of the standard error; if that is unknown, the second digit of the number.
    """
    known = stderr > 0
    size = stderr if known else abs(value)
    if not 0 < size < math.inf:
        return 1
    last = math.floor(math.log10(size)) - (0 if known else 1)
    return min(max(1, -last), _MOST_DECIMALS)


def with_error(value: float, stderr: float) -> str:
    """Write a fraction in percent with its standard error; without the error if it is 0 or unknown."""
    places = decimals(100 * value, 100 * stderr)
    error = f" ± {100 * stderr:.{places}f}" if stderr > 0 else ""
    return f"{100 * value:.{places}f}{error}"


def gain(before: Metric, after: Metric) -> str:
    """Write the difference of two scores in points, with the digits that the larger standard error justifies."""
    change, stderr = 100 * (after.value - before.value), 100 * max(before.stderr, after.stderr)
    return signed(change, decimals(change, stderr))


def signed(number: float, places: int) -> str:
    """Write a number with its sign and this many decimals; zero has no sign."""
    rounded = round(number, places)
    return f"{rounded:+.{places}f}".replace("-", _MINUS) if rounded else f"{0:.{places}f}"
