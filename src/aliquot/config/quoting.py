"""Quoting of settings: a value passes through the shell, then Hydra's grammar, then OmegaConf's `${...}`.

Imports nothing heavy.
"""

from __future__ import annotations

import re
import shlex


def setting(name: str, value: str) -> str:
    """Return NAME=VALUE in the form that Hydra reads as exactly this text, quoted where necessary."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Quote, QuotedString
    from hydra.errors import HydraException

    literal = re.sub(r"(\\*)\$\{", lambda found: rf"{found[1] * 2}\${{", value)
    try:
        read = OverridesParser.create().parse_override(f"{name}={literal}")
        if literal and not read.is_sweep_override() and read.value() == literal and isinstance(read.value(), str):
            return f"{name}={literal}"
    except HydraException:
        pass
    return f"{name}={QuotedString(literal, Quote.double).with_quotes()}"


def typed(name: str, value: str) -> str:
    """Return what to type in a shell so that a setting is exactly this text."""
    return shlex.quote(setting(name, value))
