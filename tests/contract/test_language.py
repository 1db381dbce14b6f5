"""Docs, docstrings and comments are written in plain technical English."""

import pytest

from tests.support.language import LIMITS, files, rates


@pytest.mark.parametrize("phrase", LIMITS)
def test_a_phrase_that_is_hard_to_read_is_rare(phrase):
    rate = rates(files())[phrase]
    print(f"{rate:.2f} per 1,000 words, at most {LIMITS[phrase]}")
    assert rate <= LIMITS[phrase]
