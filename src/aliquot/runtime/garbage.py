"""Python's search for garbage, put off while a command imports its libraries.

The libraries make a million objects that stay, and looking through them again and again takes a quarter of the seconds
for which they are imported. From the first model on, the usual search is back: a cycle may hold tensors of a GPU.
"""

import gc

_USUAL = gc.get_threshold()
_RARE = (100_000, 20, 20)  # bounded, for commands that never load a model
_put_off = False  # not read from gc.get_threshold(): Python 3.14 does not return what was set


def collect_rarely() -> None:
    """Search rarely from now on; for the start of a process."""
    global _put_off
    _put_off = True
    gc.set_threshold(*_RARE)


def collect_as_usual() -> None:
    """Search as usual from now on, but not through what is there already; nothing where the search is as usual.

    Call it before a network is built: what is there now is never searched again, and a network in a cycle would stay.
    """
    global _put_off
    if _put_off:
        _put_off = False
        gc.freeze()
        gc.set_threshold(*_USUAL)
