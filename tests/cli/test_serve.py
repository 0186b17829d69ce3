"""`marey serve`: what is refused before anything is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

RUN = """
import sys
from marey.cli import main
sys.argv = ["marey", "serve", *sys.argv[1:]]
try:
    main()
finally:
    print("loaded:", *sorted({"torch", "fastapi", "uvicorn"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("/typo", "marey: --model /typo: no such checkpoint folder; bundled names: "),
        ("marey-mimi", "marey: --model marey-mimi: unknown model 'marey-mimi'; did you mean"),
        ("mine=FOLDER", "config.json: no such file; a checkpoint is a folder with config.json"),
    ],
)
def test_a_model_that_is_not_there_is_said_in_one_line_before_torch_is_loaded(
    tmp_path, model, said
):
    model = model.replace("FOLDER", str(tmp_path))
    run = subprocess.run(
        [sys.executable, "-c", RUN, "--model", "marey-mini", "--model", model],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 2
    assert run.stdout == "loaded:\n"
    assert said in run.stderr
    assert run.stderr.count("\n") == 1
