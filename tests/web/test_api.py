"""The HTTP API: answers, statuses, and nothing left on disk."""

from __future__ import annotations

import asyncio
import glob
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the extra 'web' is not installed")
from fastapi.testclient import TestClient

from marey.errors import UserError
from marey.inference.predictor import Predictor
from marey.web.app import create_app
from marey.web.limits import Limits
from marey.web.models import ModelShelf
from marey.web.uploads import TooLargeError, plain_suffix, stored

BASE_URL = "http://127.0.0.1:7860"


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads land in a folder of the test, so that what other programs leave in the common one
    does not count."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def client(tiny_checkpoint: Path) -> TestClient:
    limits = Limits(max_megabytes=1, max_seconds=20, concurrent=1)
    return TestClient(
        create_app(ModelShelf([str(tiny_checkpoint)]), limits, page=False), base_url=BASE_URL
    )


def post(client: TestClient, content: bytes, name: str = "v.mp4", **form: str) -> tuple[int, dict]:
    answer = client.post("/api/predict", files={"video": (name, content)}, data=form)
    return answer.status_code, answer.json()


def leftovers() -> list[str]:
    return glob.glob(f"{tempfile.gettempdir()}/marey-upload-*")


def test_the_answer_is_that_of_the_predictor_under_the_visitors_name(
    client: TestClient, tiny_checkpoint: Path, day_and_night: Path
) -> None:
    name = 'it\'s "#1" <b>../x.mp4'
    status, document = post(client, day_and_night.read_bytes(), name)
    assert status == 200
    (entry,) = document["results"]
    assert (
        entry["predictions"]
        == Predictor.load(tiny_checkpoint)(day_and_night).to_dict()["predictions"]
    )
    assert "marey-upload" not in str(document)
    assert leftovers() == []


@pytest.mark.parametrize(
    ("content", "form", "status", "message"),
    [
        (b"", {}, 400, "the file is empty"),
        (b"not a video", {}, 415, "v.mp4"),
        (b"x" * 1_200_000, {}, 413, "larger than 1 MB"),
        (b"x", {"model": "hf:anything/else"}, 400, "is not offered"),
        (b"x", {"top": "0"}, 422, "greater than or equal to 1"),
    ],
)
def test_bad_requests_get_their_status_and_leave_nothing(
    client: TestClient, content: bytes, form: dict[str, str], status: int, message: str
) -> None:
    found, document = post(client, content, **form)
    assert found == status
    assert message in str(document["detail"])
    assert "marey-upload" not in str(document["detail"])
    assert leftovers() == []


def test_a_video_beyond_the_duration_limit_is_refused(
    tiny_checkpoint: Path, day_and_night: Path
) -> None:
    app = create_app(ModelShelf([str(tiny_checkpoint)]), Limits(max_seconds=5), page=False)
    status, document = post(TestClient(app, base_url=BASE_URL), day_and_night.read_bytes())
    assert status == 413
    assert "lasts 8 s, this server takes up to 5 s" in document["detail"]


def test_a_video_beyond_the_pixel_limit_is_refused(
    tiny_checkpoint: Path, day_and_night: Path
) -> None:
    app = create_app(ModelShelf([str(tiny_checkpoint)]), Limits(max_pixels=64 * 48 - 1), page=False)
    status, document = post(TestClient(app, base_url=BASE_URL), day_and_night.read_bytes())
    assert status == 413
    assert (
        "v.mp4: has frames of more than 3071 pixels, the most this server takes"
        in document["detail"]
    )


def test_where_a_model_cannot_be_loaded_the_bundled_one_answers(
    tmp_path: Path, day_and_night: Path
) -> None:
    client = TestClient(
        create_app(ModelShelf(["marey-mini", str(tmp_path / "gone")]), page=False),
        base_url=BASE_URL,
    )
    status, document = post(client, day_and_night.read_bytes(), model=str(tmp_path / "gone"))
    assert status == 200
    assert "marey-mini answers instead" in document["notice"]
    assert document["model"] == "marey-mini"
    assert client.get("/api/models").status_code == 200


def test_pages_may_only_talk_to_us(client: TestClient) -> None:
    answer = client.get("/docs")
    assert answer.status_code == 200
    assert "https://" not in answer.text
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    described = client.get("/openapi.json").json()["paths"]["/api/predict"]["post"]["responses"]
    assert {"400", "413", "415", "503"} <= set(described)


def test_only_offered_models_are_loaded_and_the_least_used_goes_first(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    import shutil

    names = [str(tiny_checkpoint)] + [str(tmp_path / str(i)) for i in range(2)]
    for name in names[1:]:
        shutil.copytree(tiny_checkpoint, name)
    shelf = ModelShelf(names, keep=2)
    first = shelf.get(names[0])[0]
    shelf.get(names[1])
    assert shelf.get(names[0])[0] is first
    shelf.get(names[2])
    assert list(shelf._loaded) == [names[0], names[2]]
    with pytest.raises(UserError, match="is not offered by this server"):
        shelf.get("hf:facebook/timesformer-base-finetuned-k400")


def test_uploads_are_counted_while_they_come_and_deleted_after() -> None:
    class Endless:
        filename = "../../etc/x.mp4"

        async def read(self, size: int = -1, /) -> bytes:
            return b"x" * 1000

    async def store() -> None:
        async with stored(Endless(), 5000) as path:
            raise AssertionError(path)

    with pytest.raises(TooLargeError):
        asyncio.run(store())
    assert leftovers() == []
    assert plain_suffix("../../x.m<p4") == ""
