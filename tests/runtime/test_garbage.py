"""The search for garbage is put off, and is as usual again from one point on."""

import gc

from aliquot.runtime.garbage import collect_as_usual, collect_rarely


def test_the_search_is_as_usual_again_even_if_python_does_not_return_the_thresholds_that_were_set(monkeypatch):
    usual, found = gc.get_threshold(), gc.get_freeze_count()
    collect_rarely()
    assert gc.get_threshold()[0] > usual[0]
    with monkeypatch.context() as later:  # Python 3.14 has no third threshold
        later.setattr(gc, "get_threshold", lambda: (100_000, 20, 0))
        collect_as_usual()
    assert gc.get_threshold() == usual and gc.get_freeze_count() > found


def test_nothing_is_set_aside_where_the_search_is_as_usual():
    found = gc.get_freeze_count()
    collect_as_usual()
    assert gc.get_freeze_count() == found
