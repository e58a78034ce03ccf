"""Log lines and warnings on standard error, in the plainest form."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def set_up_logging(silent: bool = False) -> None:
    """Send our log lines, and warnings of anybody, to stderr in the plainest form.

    Of several processes that run the same experiment together one speaks; the others, `silent`, only warn.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("aliquot").setLevel(logging.WARNING if silent else logging.INFO)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft imports it, used or not; it lists kernels it lacks
    logging.captureWarnings(True)
    warnings.formatwarning = _one_line


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Leave out where in the code a warning was raised: it speaks to users."""
    return f"warning: {message}"
