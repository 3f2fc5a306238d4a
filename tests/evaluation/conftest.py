"""What tests of evaluation share."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest
import torch


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Downloads fail as on a machine without a network and without earlier downloads."""

    def refused(*arguments, **options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refused)
    monkeypatch.setattr(torch.hub, "urlopen", refused)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
