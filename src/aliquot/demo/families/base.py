"""What a task is: a sampler of instances, several ways to ask for one and several ways to state one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Item:
    """One instance: `key` is its content regardless of wording, so equal keys mean the same question."""

    key: str
    response: str
    slots: dict[str, str]


@dataclass(frozen=True)
class Task:
    """One task: `prompts` ask (pool, benchmark), `statements` tell (pretraining text) with `{response}`."""

    name: str
    family: str
    draw: Callable[[Random], Item]
    prompts: tuple[str, ...]
    statements: tuple[str, ...]

    def ask(self, item: Item, phrasing: int) -> str:
        """Phrase the instance as a request."""
        return self.prompts[phrasing].format_map(item.slots)

    def tell(self, item: Item, rng: Random) -> str:
        """Phrase the instance, including its answer, as plain text."""
        return rng.choice(self.statements).format_map({**item.slots, "response": item.response})
