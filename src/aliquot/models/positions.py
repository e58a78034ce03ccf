"""How many positions a model can distinguish, and the length beyond which its rotary frequencies vary by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class Shift(NamedTuple):
    """Rotary frequencies that depend on the longest row of a batch.

    Args:
        rope_type: how they depend on it.
        positions: the longest row that has the same frequencies as all shorter rows.
    """

    rope_type: str
    positions: int


def num_positions(config: PreTrainedConfig) -> int | None:
    """Return the number of token positions that the model can distinguish; None if its config sets no limit."""
    positions: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    if positions is None:
        return None
    # Some configs that stretch rotary positions state the stretched number, others the original one.
    stretched = [
        int((rope.get("original_max_position_embeddings") or positions) * rope["factor"])
        for rope in _ropes(config)
        if rope.get("factor")
    ]
    return max([positions, *stretched])


def first_shift(config: PreTrainedConfig) -> Shift | None:
    """Return the length beyond which rotary frequencies depend on the longest row of a batch; None if they never do.

    transformers computes them once per batch, from the largest position: `dynamic` (NTK-aware scaling) for every length
    beyond the original context; `longrope` (Ding et al., 2024) switches to another set there.
    """
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    original = getattr(text, "original_max_position_embeddings", None)  # takes precedence over rope_parameters
    shifts: list[Shift] = []
    for rope in _ropes(config):
        kind = str(rope.get("rope_type", rope.get("type", "default")))
        limit = original or rope.get("original_max_position_embeddings") if kind == "longrope" else positions
        if ("dynamic" in kind or kind == "longrope") and limit:
            shifts.append(Shift(kind, int(limit)))
    return min(shifts, key=lambda shift: shift.positions, default=None)


def _ropes(config: PreTrainedConfig) -> Iterator[dict[str, Any]]:
    """Yield the settings of rotary positions: one set, or one per kind of layer."""
    rope: object = getattr(config.get_text_config(), "rope_parameters", None)
    if not isinstance(rope, dict):
        return
    settings = cast("dict[str, Any]", rope)
    nested = [value for value in settings.values() if isinstance(value, dict)]
    yield from cast("list[dict[str, Any]]", nested) or [settings]
