"""Files of a server that was killed are swept away by the next; those of a running one are not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from marey.web.storage import OWNER, PREFIX, make_root, owner_of, sweep

PROGRAM = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from marey.web.storage import make_root, new_folder
(new_folder(make_root()) / "upload.mp4").write_bytes(b"x" * 1000)
print("ready", flush=True)
sys.stdin.read()
"""


def test_files_of_a_killed_server_are_swept_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        (old,) = tmp_path.glob(f"{PREFIX}*")
        assert sweep(tmp_path) == []  # it runs
        server.send_signal(signal.SIGKILL)
        server.wait()
        assert list(old.rglob("upload.mp4"))
        new = make_root()
    assert list(tmp_path.glob(f"{PREFIX}*")) == [new]


def test_what_may_belong_to_somebody_else_stays(tmp_path: Path) -> None:
    elsewhere = tmp_path / f"{PREFIX}a"
    elsewhere.mkdir()
    owner = {"host": "another machine", "pid": 1, "started": 1.0}
    (elsewhere / OWNER).write_text(json.dumps(owner))
    starting = tmp_path / f"{PREFIX}b"
    starting.mkdir()
    target = tmp_path / "precious"
    target.mkdir()
    (tmp_path / f"{PREFIX}c").symlink_to(target)
    assert sweep(tmp_path) == []


@pytest.mark.parametrize("content", ["", "[]", '{"host": 3}', "null"])
def test_a_folder_with_a_damaged_owner_goes(tmp_path: Path, content: str) -> None:
    folder = tmp_path / f"{PREFIX}d"
    folder.mkdir()
    (folder / OWNER).write_text(content)
    assert sweep(tmp_path) == ([] if content == '{"host": 3}' else [folder])


def test_a_number_that_went_to_another_process_is_no_owner(tmp_path: Path) -> None:
    folder = tmp_path / f"{PREFIX}e"
    folder.mkdir()
    owner = owner_of(os.getpid()) | {"started": 1.0}
    (folder / OWNER).write_text(json.dumps(owner))
    assert sweep(tmp_path) == [folder]
