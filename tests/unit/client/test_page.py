from stepwise.client.cli.main import main
from stepwise.client.page import html


def test_an_address_without_a_server_gives_one_sentence_and_status_1(capsys):
    assert main(["page", "--url", "127.0.0.1:9"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: 127.0.0.1:9: ")
    assert "is the server running (stepwise serve)?" in said


def test_the_text_of_an_error_is_escaped():
    shown = html.under_way([], "seed: got '<img src=x>'")
    assert "seed: got &#x27;&lt;img src=x&gt;&#x27;" in shown
