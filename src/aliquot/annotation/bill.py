"""What responses cost: the price of tokens, and the bill stored next to the responses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aliquot.runtime.wording import counted
from aliquot.store.store import write_atomic


@dataclass(frozen=True)
class Price:
    """Price per million tokens, in any currency; reports sum it.

    Args:
        input: of prompt tokens.
        output: of response tokens.
    """

    input: float = 0.0
    output: float = 0.0

    def __post_init__(self) -> None:
        if self.input < 0 or self.output < 0:
            raise ValueError(
                f"price_per_million: input={self.input} and output={self.output} must not be below 0; give 0 or more"
            )

    def of(self, input_tokens: int, output_tokens: int) -> float:
        """Return the cost of this many tokens."""
        return (self.input * input_tokens + self.output * output_tokens) / 1e6


@dataclass(frozen=True)
class Bill:
    """The cost of the responses to one selection of prompts, regardless of which run paid for them.

    Two selections that share prompts also share the cost of these: the sum of several bills is not what was spent.

    Args:
        by: the annotator.
        num_asked: number of selected prompts.
        num_responses: number of responses that are trained on.
        cost: of all answers, including unusable ones; in the currency of the configured price.
        input_tokens: of the prompts, as the annotator read them; 0 for people.
        output_tokens: of the responses; 0 for people.
        left_out: reason for a missing response -> number of prompts.
    """

    by: str
    num_asked: int
    num_responses: int
    cost: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])

    def __str__(self) -> str:
        parts = [f"{self.by}: {counted(self.num_responses, 'response')} to {counted(self.num_asked, 'prompt')}"]
        if self.input_tokens or self.output_tokens:
            parts.append(f"{self.input_tokens:,} tokens in, {self.output_tokens:,} out")
        parts.append(f"cost {self.cost:,.4f}")
        left_out = ", ".join(f"{num:,} {why}" for why, num in self.left_out.items())
        return ", ".join(parts) + (f"; left out: {left_out}" if left_out else "")

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        write_atomic(path, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Bill:
        """Read what `write` wrote."""
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(**values)
