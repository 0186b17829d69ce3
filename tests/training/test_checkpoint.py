"""The resume file: everything comes back, nothing is pickled, a failed write leaves the old one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from marey.errors import UserError
from marey.training.checkpoint import RESUME_FILE, load_resume, save_resume


def trained(
    kind: type[torch.optim.Optimizer], **settings: float
) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = kind(model.parameters(), **settings)  # type: ignore[call-arg]
    for _ in range(3):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
        (torch.optim.SGD, {"lr": 0.1}),
        (torch.optim.AdamW, {"lr": 0.1}),
    ],
)
def test_weights_and_optimiser_come_back_and_go_on_equally(
    tmp_path: Path, kind: type, settings: dict
) -> None:
    model, optimizer = trained(kind, **settings)
    save_resume(tmp_path, {"step": model}, optimizer, {"step": 3, "best": 0.5})
    other = nn.Linear(3, 2)
    again = kind(other.parameters(), **settings)
    state = load_resume(tmp_path, {"step": other}, again)
    assert (state["step"], state["best"]) == (3, 0.5)
    for network, optim in ((model, optimizer), (other, again)):
        optim.zero_grad()
        network(torch.ones(1, 3)).sum().backward()
        optim.step()
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )


def test_the_file_is_safetensors_with_json(tmp_path: Path) -> None:
    model, optimizer = trained(torch.optim.AdamW, lr=0.1)
    save_resume(tmp_path, {"step": model}, optimizer, {"step": 3})
    head = (tmp_path / RESUME_FILE).read_bytes()[8:]
    assert head.startswith(b"{")
    assert b"optimizer/0.exp_avg" in head


@pytest.mark.parametrize("damage", ["cut", "empty"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    model, optimizer = trained(torch.optim.AdamW, lr=0.1)
    save_resume(tmp_path, {"step": model}, optimizer, {"step": 3})
    whole = (tmp_path / RESUME_FILE).read_bytes()
    (tmp_path / RESUME_FILE).write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    with pytest.raises(UserError, match=r"resume\.safetensors: cannot resume"):
        load_resume(tmp_path, {"step": model}, optimizer)


def test_a_failed_write_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = trained(torch.optim.AdamW, lr=0.1)
    save_resume(tmp_path, {"step": model}, optimizer, {"step": 3})
    before = (tmp_path / RESUME_FILE).read_bytes()

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("marey.training.checkpoint.save_file", full)
    with pytest.raises(UserError, match="the disk is full"):
        save_resume(tmp_path, {"step": model}, optimizer, {"step": 4})
    assert (tmp_path / RESUME_FILE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [RESUME_FILE]
