"""Log lines and warnings on standard error, in the simplest format."""

from __future__ import annotations

import logging
import sys
import warnings


def set_up_logging(silent: bool = False) -> None:
    """Send our log lines, and all warnings, to stderr in the simplest format.

    When several processes run one experiment, only the first logs; the others are `silent` and emit warnings only.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("aliquot").setLevel(logging.WARNING if silent else logging.INFO)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft always imports it, and it warns of missing kernels
    logging.captureWarnings(True)
    warnings.formatwarning = _one_line


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Leave out where in the code a warning was raised: it is meant for users."""
    return f"warning: {message}"
