import pytest

from stepwise.server import log


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "E1 5 lifecycle.cc:642] \"failed to load 'a_b' version 1: Internal: no\\n\\nAt: x\"",
            "Triton cannot load a_b: Internal: no",
        ),
        (
            "E1 5 manager.cc:1415] \"failed to poll model 'a_b': model not found.\"",
            "Triton cannot load a_b: model not found.",
        ),
        (
            "E1 5 manager.cc:1460] \"Poll failed for model directory 'a_b': failed to read text\"",
            "Triton cannot load a_b: failed to read text",
        ),
        ('I1 5 server.cc:1] "fine"', None),
    ],
)
def test_names_the_model_that_cannot_be_loaded(tmp_path, line, sentence):
    path = tmp_path / "log"
    path.write_text(f'I1 5 x.cc:1] "before"\n{line}\nI1 5 x.cc:1] "after"\n')
    assert log.load_failure(path) == sentence


def test_tail_leaves_out_tables(tmp_path):
    path = tmp_path / "log"
    path.write_text("one\n\n+---+\n| a |\n+---+\ntwo\n")
    assert log.tail(path) == "one\n\ntwo"
