"""Which device a name means, and what it is called."""

import pytest
import torch

from refashion.base.errors import UserError
from refashion.training import device


@pytest.mark.parametrize(
    ("name", "available", "want"),
    [("auto", False, "cpu"), ("auto", True, "cuda"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_resolve(name: str, available: bool, want: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert device.resolve(name) == torch.device(want)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"device: cuda is not available.*auto or cpu"):
        device.resolve("cuda")
