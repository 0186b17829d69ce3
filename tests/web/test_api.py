"""The HTTP API: answers, statuses in one shape, its description, and nothing left on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("fastapi_offline", reason="the extra 'web' is not installed")

from marey.inference.predictor import Predictor
from marey.web import app
from marey.web.limits import Limits
from marey.web.schemas import Answer, JobState, Models


def post(client, content: bytes, name: str = "v.mp4", **form: str) -> tuple[int, dict]:
    answer = client.post("/api/predict", files={"video": (name, content)}, data=form)
    return answer.status_code, answer.json()


def test_the_answer_is_that_of_the_predictor_under_the_visitors_name(
    client, tiny_checkpoint: Path, day_and_night: Path, leftovers
) -> None:
    status, document = post(client, day_and_night.read_bytes(), 'it\'s "#1" <b>../x.mp4')
    assert status == 200
    (entry,) = document["results"]
    assert document["model"] == "tiny"
    predicted = Predictor.load(tiny_checkpoint, views=1)(day_and_night).to_dict()
    assert entry["predictions"] == predicted["predictions"]
    assert "marey-serve" not in str(document)
    assert str(tiny_checkpoint) not in str(document)
    assert leftovers() == []
    Answer.model_validate(document)


@pytest.mark.parametrize(
    ("content", "form", "status", "message"),
    [
        (b"", {}, 400, "v.mp4: the file is empty"),
        (b"not a video", {}, 415, "v.mp4: cannot be read as a video"),
        (b"x" * 2_200_000, {}, 413, "larger than 1 MB"),
        (b"x", {"model": "hf:anything/else"}, 400, "is not offered (this server has: tiny)"),
        (b"x", {"model": "http://127.0.0.1/x"}, 400, "is not offered"),
        (b"x", {"top": "0"}, 422, "top: Input should be greater than or equal to 1"),
    ],
)
def test_bad_requests_get_their_status_in_one_line_and_leave_nothing(
    client, leftovers, content: bytes, form: dict[str, str], status: int, message: str
) -> None:
    found, document = post(client, content, **form)
    assert found == status
    assert set(document) == {"detail"}
    assert message in document["detail"]
    assert "\n" not in document["detail"]
    assert "marey-serve" not in document["detail"]
    assert leftovers() == []


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_seconds": 5}, "v.mp4: lasts 8 s, this server takes up to 5 s"),
        ({"max_pixels": 64 * 48 - 1}, "v.mp4: has frames of more than 3071 pixels"),
        ({"max_frames": 79}, "v.mp4: has more than 79 frames"),
    ],
)
def test_a_video_beyond_the_limits_is_refused(
    make_client, day_and_night: Path, limits: dict, message: str
) -> None:
    client = make_client(limits=Limits(concurrent=1, **limits))
    status, document = post(client, day_and_night.read_bytes())
    assert status == 413
    assert message in document["detail"]


def test_a_model_that_cannot_be_loaded_is_an_error_and_no_other_one_answers(
    make_client, tiny_checkpoint: Path, tmp_path: Path, day_and_night: Path
) -> None:
    client = make_client(f"tiny={tiny_checkpoint}", str(tmp_path / "gone" / "best"))
    status, document = post(client, day_and_night.read_bytes(), model="gone-best")
    assert status == 503
    assert "gone-best cannot be loaded" in document["detail"]
    assert str(tmp_path) not in document["detail"]


def test_a_hostile_config_is_one_line(
    make_client, tiny_checkpoint: Path, tmp_path: Path, day_and_night: Path
) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    for content in ('{"format": 1, "arguments": {"depth": "\\u001b[2J"}}', "[1]", '{"model": 7}'):
        (bad / "config.json").write_text(content)
        (bad / "model.safetensors").write_bytes(b"\x80\x04cos\nsystem\n.")
        status, document = post(make_client(str(bad)), day_and_night.read_bytes())
        assert status == 503
        assert "\n" not in document["detail"]
        assert str(tmp_path) not in document["detail"]


def test_video_twice_is_refused_and_a_batch_answers_each(
    client, day_and_night: Path, leftovers
) -> None:
    video = ("a.mp4", day_and_night.read_bytes())
    twice = client.post("/api/predict", files=[("video", video), ("video", video)])
    assert twice.status_code == 422
    assert "'video' is given more than once" in twice.json()["detail"]

    files = [("videos", video), ("videos", ("bad.mp4", b"junk")), ("videos", ("empty.mp4", b""))]
    batch = client.post("/api/predict/batch", files=files)
    assert batch.status_code == 200
    first, bad, empty = batch.json()["results"]
    assert (first["video"], first["error"]) == ("a.mp4", None)
    assert {entry["label"] for entry in first["predictions"]} == {"bright", "dark"}
    assert "bad.mp4: cannot be read" in bad["error"]
    assert "empty.mp4: the file is empty" in empty["error"]
    Answer.model_validate(batch.json())
    many = client.post("/api/predict/batch", files=[("videos", video)] * 17)
    assert many.status_code == 422
    assert leftovers() == []


@pytest.mark.parametrize(
    ("method", "address", "status"),
    [
        ("GET", "/api/predict", 405),
        ("DELETE", "/api/predict", 405),
        ("POST", "/api/models", 405),
        ("GET", "/nothing", 404),
        ("GET", "/api/jobs/none", 404),
        ("POST", "/api/predict", 422),
    ],
)
def test_other_mistakes_have_the_same_shape(client, method: str, address: str, status: int) -> None:
    answer = client.request(method, address)
    assert answer.status_code == status
    assert list(answer.json()) == ["detail"]
    assert isinstance(answer.json()["detail"], str)
    assert (status == 405) == ("allow" in answer.headers)


def test_text_in_the_place_of_a_file_is_refused_in_plain_words(client) -> None:
    answer = client.post("/api/predict", files={"video": (None, "/etc/passwd")})
    assert (answer.status_code, answer.json()) == (422, {"detail": "video: send a file, not text"})


def test_the_description_has_schemas_of_every_answer(client) -> None:
    described = client.get("/openapi.json").json()
    responses = described["paths"]["/api/predict"]["post"]["responses"]
    assert {"200", "400", "401", "403", "408", "413", "415", "422", "500", "503"} <= set(responses)
    for status, response in responses.items():
        schema = response["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert schema == ("Answer" if status == "200" else "Problem"), status
    assert "HTTPValidationError" not in described["components"]["schemas"]
    assert "tiny_checkpoint" not in str(described)


def test_models_have_names_and_classes_and_no_paths(client, tiny_checkpoint: Path) -> None:
    answer = client.get("/api/models")
    Models.model_validate(answer.json())
    assert answer.json()["models"] == ["tiny"]
    assert str(tiny_checkpoint.parent) not in answer.text


def test_pages_may_only_talk_to_us(client) -> None:
    for address in ("/", "/docs"):
        answer = client.get(address)
        assert answer.status_code == 200
        assert "https://" not in answer.text
        assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe-inline" not in client.get("/").headers["content-security-policy"]
    assert (
        "access-control-allow-origin"
        not in client.get("/api/models", headers={"Origin": "http://evil.example"}).headers
    )


def test_the_page_gets_a_verdict_frames_and_then_the_document(
    client, follow, day_and_night: Path, leftovers
) -> None:
    state = follow(client, "answer", day_and_night.read_bytes(), "day.mp4")
    JobState.model_validate(state | {"parts": []})
    assert state["state"] == "done"
    assert "verdict" in state["parts"][0]  # first, before pictures are drawn
    merged = state["merged"]
    assert merged["verdict"]["kind"] in ("sure", "unsure")
    assert [entry["label"] for entry in merged["timeline"]] == ["bright", "dark"]
    assert len(merged["frames"]) == 4
    for frame in merged["frames"]:
        for kind in ("file", "map"):
            picture = client.get(f"/api/jobs/{state['id']}/files/{frame[kind]}")
            assert picture.status_code == 200
            assert picture.content[:2] == b"\xff\xd8"
    assert state["result"]["results"][0]["video"] == "day.mp4"
    assert not [path for path in leftovers() if "upload" in path], "deleted when the answer is out"
    assert client.post(f"/api/jobs/{state['id']}/leave").status_code == 204
    assert leftovers() == []
    assert client.get(f"/api/jobs/{state['id']}").status_code == 404


def test_pictures_of_work_that_is_stopped_stay_if_asked_for(
    client, follow, day_and_night: Path, leftovers
) -> None:
    state = follow(client, "answer", day_and_night.read_bytes())
    job, picture = f"/api/jobs/{state['id']}", state["merged"]["frames"][0]["file"]
    assert client.delete(f"{job}?keep=true").status_code == 204
    assert client.get(f"{job}/files/{picture}").status_code == 200
    assert client.delete(job).status_code == 204
    assert client.get(f"{job}/files/{picture}").status_code == 404
    assert leftovers() == []


@pytest.mark.slow
def test_a_pose_model_s_answer_comes_with_the_joints_and_moments_that_decided(
    make_client, follow
) -> None:
    client = make_client("marey-mini")
    example = Path(app.__file__).with_name("examples") / "cartwheel.mp4"
    state = follow(client, "answer", example.read_bytes())
    assert state["state"] == "done", state["error"]
    order = [name for part in state["parts"] for name in part]
    assert order.index("verdict") < order.index("people") < order.index("decided")
    decided = state["merged"]["decided"]
    assert decided["label"] == "cartwheel"
    falls = [part["fall"] for part in decided["parts"]]
    assert falls == sorted(falls, reverse=True)
    assert len(falls) in (13, 14)
    assert falls[0] > 0.02
    assert decided["moments"][0]["start_seconds"] == 0
    for frame in decided["frames"]:
        picture = client.get(f"/api/jobs/{state['id']}/files/{frame['file']}")
        assert picture.content[:2] == b"\xff\xd8"


def test_a_truncated_file_is_answered_with_a_warning(
    client, follow, day_and_night: Path, tmp_path: Path
) -> None:
    import av

    cut = tmp_path / "cut.mkv"
    with av.open(str(day_and_night)) as source, av.open(str(cut), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = cut.read_bytes()
    state = follow(client, "answer", content[: int(len(content) * 0.6)], "cut.mkv")
    assert state["state"] == "done", state["error"]
    assert any("damaged" in warning for warning in state["merged"]["warnings"])


def test_files_of_an_answer_are_its_pictures_and_nothing_else(
    client, follow, day_and_night: Path
) -> None:
    state = follow(client, "preview", day_and_night.read_bytes())
    base = f"/api/jobs/{state['id']}/files"
    assert client.get(f"{base}/preview.mp4").status_code == 200
    for name in (
        "upload.mp4",
        "../owner.json",
        "..%2fowner.json",
        "%2e%2e/owner.json",
        "..%5cowner.json",
        "%2fetc%2fpasswd",
        "preview.mp4%00.jpg",
    ):
        answer = client.get(f"{base}/{name}")
        assert answer.status_code in (404, 422), name
        assert b"pid" not in answer.content
