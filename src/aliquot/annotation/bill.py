"""What responses cost: the price of tokens, what is expected before buying, and the bill next to the responses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from aliquot.runtime.wording import counted
from aliquot.store.store import write_atomic

#: Rough bytes per token, if nobody has counted: scripts with about one token per character have more bytes each.
BYTES_PER_TOKEN = 4


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
class Tariff:
    """What an annotator charges, as far as that is known before a response exists.

    Args:
        per_response: its mean price, second responses included.
        per_million: price of a million tokens.
        bytes_around: of what is sent with every prompt.
        max_tokens: maximum length of a response.
    """

    per_response: float = 0.0
    per_million: Price = Price()
    bytes_around: int = 0
    max_tokens: int = 0

    @property
    def is_free(self) -> bool:
        return self.expected(np.ones(1), np.ones(1)).item() == 0

    def expected(
        self, num_bytes: Float64[np.ndarray, " n"] | Int64[np.ndarray, " n"], response_tokens: np.ndarray
    ) -> Float64[np.ndarray, " n"]:
        """Return the expected cost of responses.

        Args:
            num_bytes: of each prompt.
            response_tokens: expected of each response.
        """
        tokens_in = np.ceil((num_bytes + self.bytes_around) / BYTES_PER_TOKEN)
        tokens_out = np.minimum(response_tokens, self.max_tokens)
        of_tokens = (self.per_million.input * tokens_in + self.per_million.output * tokens_out) / 1e6
        return np.asarray(self.per_response + of_tokens, dtype=np.float64)


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
        limit: the budget, if it is in money or tokens, or "".
        spent: of this budget.
        why_left: why the rest of it buys no other response.
    """

    by: str
    num_asked: int
    num_responses: int
    cost: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])
    limit: str = ""
    spent: float = 0.0
    why_left: str = ""

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
