"""The service from start to end: what it says when it cannot begin."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from appliance.__main__ import main

pytestmark = pytest.mark.live


def test_a_port_that_is_taken_is_one_sentence(
    isolated: Path, starter_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (isolated / "appliance.toml").write_text(f'[local]\nmodel = "{starter_gguf}"\n')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--config", str(isolated / "appliance.toml"), "--port", str(port)]) == 1
    assert capsys.readouterr() == (
        "",
        f"appliance: cannot listen on 127.0.0.1:{port}: address already in use; "
        "choose another with --port or stop what runs there.\n",
    )
