"""Teaching by upload: what is unpacked where, and from videos to a model."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("fastapi_offline", reason="the extra 'web' is not installed")

from marey.errors import UserError
from marey.web.lesson_paths import safe_path
from marey.web.lessons import unpack, videos_root
from marey.web.limits import Limits


def zipped(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def test_a_zip_is_unpacked_below_its_folder(tmp_path: Path) -> None:
    archive = zipped(
        tmp_path / "a.zip", {"set/walk/1.mp4": b"x", "set/run/2.mp4": b"y", "__MACOSX/._1": b"z"}
    )
    unpack(archive, tmp_path / "out", Limits())
    root = videos_root(tmp_path / "out")
    assert sorted(path.name for path in root.iterdir()) == ["run", "walk"]
    assert not list(root.rglob("._*"))


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a/../../evil", "C:/evil", "a\\..\\..\\b"]
)
def test_a_zip_cannot_write_elsewhere(tmp_path: Path, name: str) -> None:
    archive = zipped(tmp_path / "a.zip", {"ok/1.mp4": b"x", name: b"evil"})
    with pytest.raises(UserError, match="is no path inside"):
        unpack(archive, tmp_path / "deep" / "out", Limits())
    assert not list(tmp_path.rglob("evil"))


def test_a_zip_bomb_is_stopped_at_the_limit(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {f"a/{i}.mp4": bytes(3_000_000) for i in range(9)})
    assert archive.stat().st_size < 100_000
    with pytest.raises(UserError, match="more than 5 MB unpacked"):
        unpack(archive, tmp_path / "out", Limits(teach_megabytes=5))
    stored = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert stored <= 5_000_000
    with pytest.raises(UserError, match="holds 9 files"):
        unpack(archive, tmp_path / "out", Limits(teach_files=8))


def test_what_is_no_zip_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 junk")
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(tmp_path / "a.zip", tmp_path / "out", Limits())


def test_links_in_a_zip_are_left_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        entry = zipfile.ZipInfo("walk/1.mp4")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
        archive.writestr("walk/2.mp4", b"x")
    unpack(tmp_path / "a.zip", tmp_path / "out", Limits())
    assert [path.name for path in (tmp_path / "out").rglob("*.mp4")] == ["2.mp4"]


def test_control_characters_in_names_are_refused() -> None:
    with pytest.raises(UserError, match="is no path"):
        safe_path("walk/\x1b[2J.mp4")


def test_mistakes_of_a_lesson_are_said(client) -> None:
    videos = [("videos", ("a/walk/1.mp4", b"x")), ("videos", ("a/walk/1.mp4", b"x"))]
    twice = client.post("/api/jobs/teach", files=videos)
    assert twice.status_code == 400
    assert "given twice" in twice.json()["detail"]
    lonely = client.post("/api/jobs/teach", files=videos[:1])
    state = lonely.json()
    while state["state"] in ("queued", "running"):
        state = client.get(f"/api/jobs/{state['id']}").json()
    assert state["state"] == "failed"
    assert "two classes or more" in state["error"]
    assert "marey-serve" not in state["error"]


@pytest.mark.slow
def test_a_folder_becomes_a_model_with_an_honest_score(client, tmp_path: Path) -> None:
    import torch

    from marey.video.encode import write_video

    files = []
    generator = torch.Generator().manual_seed(0)
    for label, level in (("bright", 200), ("dark", 30)):
        for number in range(5):
            noise = torch.randint(-20, 20, (12, 3, 64, 64), generator=generator)
            path = tmp_path / f"{label}{number}.mp4"
            write_video(path, (level + noise).clamp(0, 255).byte(), fps=10)
            files.append(("videos", (f"mine/{label}/{number}.mp4", path.read_bytes())))
    state = client.post("/api/jobs/teach", files=files).json()
    stages = set()
    while state["state"] in ("queued", "running"):
        state = client.get(f"/api/jobs/{state['id']}").json()
        stages.add(state["progress"].get("stage"))
    assert state["state"] == "done", state["error"]
    result = state["result"]
    assert result["accuracy"] == 1.0
    assert set(result["classes"]) == {"bright", "dark"}
    assert stages & {"frames", "poses", "frames+poses", "one picture"}
    model = client.get(f"/api/jobs/{state['id']}/files/model.zip").content
    names = zipfile.ZipFile(io.BytesIO(model)).namelist()
    assert {"model.safetensors", "config.json", "teach.json"} <= set(names)
    assert client.get(f"/api/jobs/{state['id']}/files/report.html").status_code == 200
