"""The Host header: the bound address, loopback and the names given; nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("fastapi_offline", reason="the extra 'web' is not installed")
from fastapi.testclient import TestClient

from marey.errors import UserError
from marey.web.app import create_app
from marey.web.hosts import hosts_of


def status(checkpoint: Path, host: str, bound: str, *allowed: str, page: bool = False) -> int:
    app = create_app([str(checkpoint)], page=page, allowed_hosts=[*hosts_of(bound), *allowed])
    return TestClient(app).get("/" if page else "/api/models", headers={"Host": host}).status_code


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1", "[::1]:7860", "LOCALHOST"])
def test_loopback_is_always_answered(tiny_checkpoint: Path, host: str) -> None:
    assert status(tiny_checkpoint, host, "127.0.0.1") == 200
    assert status(tiny_checkpoint, host, "0.0.0.0") == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "192.168.1.7",
        "localhost.evil.example",
        "",
        "any address",
    ],
)
def test_another_name_is_refused_by_a_server_of_this_machine(
    tiny_checkpoint: Path, host: str
) -> None:
    assert status(tiny_checkpoint, host, "127.0.0.1") == 400


def test_the_refusal_has_the_shape_of_every_error(client) -> None:
    refused = client.get("/api/models", headers={"Host": "evil.example"})
    assert "--allowed-host" in refused.json()["detail"]
    assert "evil" not in refused.text


def test_the_page_is_behind_the_same_check(tiny_checkpoint: Path) -> None:
    assert status(tiny_checkpoint, "evil.example", "127.0.0.1", page=True) == 400
    assert status(tiny_checkpoint, "127.0.0.1:7860", "127.0.0.1", page=True) == 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.168.1.7:7860", 200),
        ("[fe80::1]:7860", 200),
        ("evil.example", 400),
        ("192.168.1.7.evil.example", 400),
    ],
)
def test_on_every_interface_addresses_pass_and_names_do_not(
    tiny_checkpoint: Path, host: str, expected: int
) -> None:
    assert status(tiny_checkpoint, host, "0.0.0.0") == expected
    assert status(tiny_checkpoint, host, "::") == expected


def test_names_given_are_answered(tiny_checkpoint: Path) -> None:
    assert status(tiny_checkpoint, "192.168.1.7", "192.168.1.7") == 200
    assert status(tiny_checkpoint, "lab.example.org", "0.0.0.0", "lab.example.org") == 200
    assert status(tiny_checkpoint, "a.example.org:80", "127.0.0.1", "*.example.org") == 200
    assert status(tiny_checkpoint, "anything", "127.0.0.1", "*") == 200


@pytest.mark.parametrize("host", ["http://lab", "lab:7860", "a*b", "", "[::1]:7860"])
def test_a_host_that_is_none_is_a_sentence(tiny_checkpoint: Path, host: str) -> None:
    with pytest.raises(UserError, match="expected a name or an address without scheme and port"):
        status(tiny_checkpoint, "localhost", "127.0.0.1", host)
