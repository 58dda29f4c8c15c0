"""Is a fleet that was begun always finished, wherever `winnow-server init` was killed?"""

from __future__ import annotations

import stat
import time

import pytest

from edge_agent.contract import artifact, keys
from server.__main__ import main
from server.config import load_config
from server.identity.authority import Authority
from server.identity.service import folder_of
from server.release.signing import Signing

WRITERS = ("identity.authority", "release.keys", "release.signing")


class KilledError(BaseException):
    """Here the command was killed."""


class Killer:
    """Lets so many files be written, and no more."""

    def __init__(self, files: int) -> None:
        self.left = files

    def after(self, write):
        def counted(*arguments, **options):
            if self.left == 0:
                raise KilledError
            self.left -= 1
            return write(*arguments, **options)

        return counted


def killed_after(monkeypatch, files: int) -> Killer:
    killer = Killer(files)
    for module in WRITERS:
        monkeypatch.setattr(f"server.{module}.write_durably", killer.after(artifact.write_durably))
    monkeypatch.setattr("server.identity.authority.write_key", killer.after(keys.write_key))
    return killer


FILES = 8  # key and certificate of the CA, four keys, the bundle, the root


@pytest.mark.parametrize("files", range(FILES + 1))
def test_what_a_killed_init_left_is_finished_by_the_next(tmp_path, monkeypatch, capsys, files):
    farm = str(tmp_path / "farm")
    with monkeypatch.context() as patched:
        killer = killed_after(patched, files)
        try:
            code = main(["init", farm])
        except KilledError:
            assert files < FILES
        else:
            assert (code, files, killer.left) == (0, FILES, 0)
    made = sorted((tmp_path / "farm" / "data").rglob("*.*"))
    again = main(["init", farm])
    said = capsys.readouterr().err
    if files < FILES - 1:
        assert again == 0, said
    else:  # the root is the server's to write once there is all it needs
        assert (again, "there is a fleet CA already" in said) == (1, True)
    config = load_config(tmp_path / "farm" / "server.toml")
    assert Authority.load(folder_of(config))
    signing = Signing(tmp_path / "farm" / "data")
    signing.tick([], now_ms=time.time_ns() // 1_000_000)  # nothing is due to be signed anew
    assert (signing.folder / "root.json").read_bytes() == bytes(signing.bundle().roots[-1])
    private = [*signing.keys.glob("*.pem"), folder_of(config) / "ca.key"]
    assert len(private) == 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert set(made) <= set((tmp_path / "farm" / "data").rglob("*.*"))  # nothing was made twice


def test_a_key_of_the_authority_that_cannot_be_read_is_said(tmp_path, capsys):
    folder = tmp_path / "farm" / "data" / "identity"
    folder.mkdir(parents=True)
    (folder / "ca.key").write_text("rubbish")
    assert main(["init", str(tmp_path / "farm")]) == 1
    assert "expected the fleet CA's key in PEM" in capsys.readouterr().err
    assert (folder / "ca.key").read_text() == "rubbish"
