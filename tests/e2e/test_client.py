import numpy as np
from PIL import Image

from client.__main__ import main

PROMPT = "a large red star in the top left on a white background"


def test_the_command_writes_pngs_and_says_their_seeds(server, client, tmp_path, capsys):
    path = tmp_path / "star.png"
    options = ["--steps", "4", "--seed", "7", "--num-images", "2", "--output", str(path)]
    assert main(["sd3", PROMPT, "--url", server.grpc_url, *options]) == 0
    told = capsys.readouterr()
    assert "star.png  seed 7  4 steps" in told.out
    assert "star-1.png  seed 8  4 steps" in told.out
    wanted = client.pictures("sd3", PROMPT, steps=4, seed=8)[0].image
    written = np.asarray(Image.open(tmp_path / "star-1.png"))
    assert np.abs(written.astype(int) - wanted).max() <= 1


def test_what_the_server_refuses_is_one_sentence_and_status_1(server, tmp_path, capsys):
    options = ["--steps", "0", "--output", str(tmp_path / "none.png")]
    assert main(["sd3", PROMPT, "--url", server.grpc_url, *options]) == 1
    assert "steps: got 0; allowed are 1 to 100" in capsys.readouterr().err
    assert not (tmp_path / "none.png").exists()
