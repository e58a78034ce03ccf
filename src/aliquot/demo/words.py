"""The stock of everyday words the tasks draw from, and the small helpers that seed and join them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from random import Random

_NOUNS = """
apple ash axe bag barn basket bean bed bell belt boot bowl box bread brick brush bucket butter cage cake candle cap
card chair chalk clay clock cloud coat comb cord corn cup desk dish door drum dust egg elm fan feather fence fig
fork gate glass glove glue grape grass hammer hat hook horn ink iron jar jug kettle key kite knife lace ladder lamp
leaf lemon lid lock map mat milk mint moss mug nail needle nest nut oak oil oven paint pan paper pear pen pie pin
pipe plate plum pot purse quilt rag rake ribbon rice ring robe rock rope rose rug sack salt sand saw scarf seed
shelf shoe soap sock spoon stick stool straw string sugar table tack tea tent thread tile tin torch towel tray tub
vase vest wagon wax wheel wire wool yarn
"""
NOUNS: tuple[str, ...] = tuple(_NOUNS.split())
_PEOPLE = """
Ada Ben Cora Dan Ella Finn Gina Hal Ida Jack Kate Leo Mia Ned Olga Paul Rosa Sam Tess Uma Vic Wendy Zoe Adam Beth
Carl Dora Emma Fred Gus
"""
PEOPLE: tuple[str, ...] = tuple(_PEOPLE.split())
PLACES = ("kitchen", "garden", "cellar", "attic", "hall", "library", "stable", "yard", "shed", "porch")
HOLDERS = ("box", "jar", "drawer", "basket", "bag", "chest", "bucket", "cupboard")
COLOURS = ("red", "blue", "green", "grey", "black", "white", "golden", "brown", "purple", "pink")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
          "November", "December")  # fmt: skip
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
            "eleventh", "twelfth")  # fmt: skip
_NONSENSE = """
blick dax fep gorp jub kiv lomp mup nerp plim quib rell snop tiv ubb vark wug yop zib brod clib drim flet glom huz
krel miv norb prax strel
"""
NONSENSE: tuple[str, ...] = tuple(_NONSENSE.split())
HELD_OUT_PARTS = 8


def seeded(*names: object) -> Random:
    """Return a generator whose stream depends only on the names: never on `hash()`, process or platform."""
    digest = hashlib.sha256("/".join(str(name) for name in names).encode()).digest()
    return Random(int.from_bytes(digest[:8], "big"))


def held_out(key: str) -> bool:
    """Say whether an instance belongs to the benchmark: one content in eight, by a hash of the content itself."""
    return hashlib.sha256(key.encode()).digest()[0] % HELD_OUT_PARTS == 0


def comma(words: Sequence[object]) -> str:
    """Join words in the world's list style: `fig, ash, elm`."""
    return ", ".join(str(word) for word in words)


def capital(text: str) -> str:
    """Capitalize the first letter and leave the others unchanged."""
    return text[:1].upper() + text[1:]
