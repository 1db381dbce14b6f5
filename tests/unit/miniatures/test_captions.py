import re
from dataclasses import fields

from miniatures.captions import HELD_OUT, SCENES, TRAINING, Scene
from miniatures.prompts import load, make

GRAMMAR = re.compile(
    r"a (small|large) (red|green|blue|yellow|purple|orange) (circle|square|triangle|star) "
    r"(in the center|in the top left|in the top right|in the bottom left|in the bottom right) "
    r"on a (white|black|gray) background"
)


def test_the_grammar_has_720_captions_and_each_parses():
    captions = {scene.caption for scene in SCENES}
    assert len(captions) == len(SCENES) == 2 * 6 * 4 * 5 * 3
    for scene in SCENES:
        match = GRAMMAR.fullmatch(scene.caption)
        assert match, scene.caption
        assert Scene(*match.groups()) == scene


def test_a_fixed_tenth_is_held_out():
    assert len(HELD_OUT) == 72
    assert len(TRAINING) == 648
    assert HELD_OUT.isdisjoint(TRAINING)
    assert HELD_OUT.union(TRAINING) == set(SCENES)
    captions = sorted(scene.caption for scene in HELD_OUT)
    assert captions[0] == "a large blue circle in the bottom left on a white background"
    assert captions[-1] == "a small yellow triangle in the top right on a white background"


def test_every_word_occurs_in_training():
    for field in fields(Scene):
        words = {getattr(scene, field.name) for scene in SCENES}
        assert {getattr(scene, field.name) for scene in TRAINING} == words, field.name


def test_the_evaluation_list_matches_the_committed_one():
    prompts = load()
    assert prompts == make()
    seen = [prompt.scene for prompt in prompts if not prompt.held_out]
    held_out = [prompt.scene for prompt in prompts if prompt.held_out]
    assert len(seen) == len(set(seen)) == 200
    assert set(seen) <= set(TRAINING)
    assert len(held_out) == 100
    assert set(held_out) == HELD_OUT
    assert len({prompt.seed for prompt in prompts}) == 300
