"""What is shown of text that somebody else has written."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpg_jax import errors
from ddpg_jax.errors import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("gamma = 0.99, naïve, 漢字 [red]", "gamma = 0.99, naïve, 漢字 [red]"),
        ("\x1b[31m\x07\r", r"\x1b[31m\x07\r"),
        ("a\u202eb\u200bc\u2028", r"a\u202eb\u200bc\u2028"),
        ("\x9b\udc80\U000e0041", r"\x9b\udc80\U000e0041"),
        ("one\ntwo", r"one\ntwo"),
        (("\x1b",), r"('\x1b',)"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_escaped(text, shown):
    assert printable(text) == shown


def test_lines_of_our_own_stay_lines():
    assert printable("one\ntwo\r\n", lines=True) == "one\ntwo\\r\n"


@given(st.text())
def test_nothing_unprintable_is_left_and_nothing_else_changes(text):
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    shown.encode("utf-8")  # no half of a pair is left
    assert printable(text, lines=True).replace("\n", "").isprintable()


def test_the_example_holds():
    assert doctest.testmod(errors).failed == 0
