"""Do a bucket's rules clear up, and delete nothing that is in force? Against a real S3."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from s3 import BUCKET, S3Server, put_raw
from typer.testing import CliRunner

from server.cli.blobs import blobs as commands
from server.errors import ServerConfigError, StoreError
from server.keep import bodies
from server.store import lifecycle, trail
from server.store.bucket import Bucket
from server.store.lifecycle import Lifecycle, beside, dangers, wanted
from server.store.shards import Shards
from server.store.store import Store

PREFIXES = st.sampled_from(["", "a/", "a/b/", "b/", "ab/"])


def expiring(prefix: str, **more: object) -> dict[str, object]:
    return {"ID": "tidy", "Status": "Enabled", "Filter": {"Prefix": prefix}, "Expiration": {"Days": 90}, **more}


@given(PREFIXES, PREFIXES)
def test_a_rule_is_a_danger_where_one_prefix_holds_the_other(its: str, ours: str) -> None:
    meets = [key for key in (its + "x", ours + "x") if key.startswith(its) and key.startswith(ours)]
    assert bool(dangers([expiring(its)], ours)) == bool(meets)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (expiring("blobs/", Status="Disabled"), []),
        (expiring("", Filter={"Tag": {"Key": "tmp", "Value": "1"}}), []),
        (expiring("", Filter={"And": {"Prefix": "blobs/", "Tags": [{"Key": "tmp", "Value": "1"}]}}), []),
        (expiring("", Filter={"And": {"Prefix": "blobs/", "ObjectSizeGreaterThan": 1}}), ["deletes", "Days = 90"]),
        ({"Status": "Enabled", "Prefix": "blobs", "Expiration": {"Days": 3}}, ["rule without a name", "Days = 3"]),
        (expiring("", Expiration={"ExpiredObjectDeleteMarker": True}), []),
        (expiring("", Expiration={}, Transitions=[{"Days": 30, "StorageClass": "STANDARD_IA"}]), []),
        (expiring("", Expiration={}, Transitions=[{"Days": 30, "StorageClass": "GLACIER"}]), ["cannot be read"]),
    ],
)
def test_what_a_rule_would_do_is_told(rule: dict[str, object], said: list[str]) -> None:
    found = dangers([rule], "blobs/")
    assert len(found) == bool(said)
    assert all(word in found[0] for word in said)


def test_our_own_are_no_danger_and_replace_themselves_alone() -> None:
    theirs = expiring("logs/")
    once = beside([theirs], wanted("blobs/"))
    assert beside(once, wanted("blobs/")) == once
    assert beside(once, wanted("other/"))[:3] == once
    assert dangers(once, "blobs/") == []


def configured(s3: S3Server, folder: Path, prefix: str) -> str:
    (folder / "server.toml").write_text(
        f'[store]\nblobs = "s3://{BUCKET}/{prefix}"\ns3_endpoint = "{s3.endpoint}"\ns3_region = "us-east-1"\n'
    )
    return str(folder / "server.toml")


def test_by_command(s3: S3Server, tmp_path: Path) -> None:
    path, run = configured(s3, tmp_path, "kept"), CliRunner()
    Store.open(tmp_path / "winnow-server-data", s3.settings("kept")).close()
    shown = run.invoke(commands, ["lifecycle", "--json", path])
    rules = Lifecycle(s3.address("kept"))
    assert shown.exit_code == 0, shown.output
    assert [rule["ID"] for rule in json.loads(shown.stdout)["Rules"]] == ["winnow-parts:kept/", "winnow-versions:kept/"]
    assert rules.rules() == []
    done = run.invoke(commands, ["lifecycle", "--apply", "--versions-days", "7", "--by", "ada", "--why", "tidy", path])
    assert done.exit_code == 0, done.output
    parts, versions = rules.rules()
    assert parts["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert versions["NoncurrentVersionExpiration"] == {"NoncurrentDays": 7}
    store = Store.open(tmp_path / "winnow-server-data", s3.settings("kept"))
    with closing(store), store.database.read() as connection:
        (entry,) = trail.entries(connection)
    assert (entry.who, entry.what, entry.subject, entry.why) == ("ada", "lifecycle", "s3://fleet/kept", "tidy")
    rules.put([*rules.rules(), expiring("")])
    refused = run.invoke(commands, ["lifecycle", path])
    assert isinstance(refused.exception, StoreError)
    assert "rule tidy deletes objects in force, by Days = 90" in str(refused.exception)
    rules.put(lifecycle.wanted("kept/"))


def test_rules_of_a_folder_are_asked_for_in_vain(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text("")
    done = CliRunner().invoke(commands, ["lifecycle", str(tmp_path / "server.toml")])
    assert isinstance(done.exception, ServerConfigError)


def invoke(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(commands, words)
    if done.exception and not isinstance(done.exception, (SystemExit, typer.Exit)):
        raise done.exception
    return done.exit_code, done.output


def test_an_endpoint_without_a_scheme_is_one_to_mend(tmp_path: Path) -> None:
    with pytest.raises(ServerConfigError, match="--s3-endpoint: got '10.0.0.5:8333', expected https://host:port"):
        invoke("copy", str(tmp_path), "s3://fleet/copied", "--s3-endpoint", "10.0.0.5:8333")


def test_blobs_are_copied_there_and_back_and_go_on_where_it_broke_off(s3: S3Server, tmp_path: Path) -> None:
    options = ["--s3-endpoint", s3.endpoint, "--s3-region", "us-east-1"]
    with closing(Shards(tmp_path / "here")) as here:
        names = here.put_many(str(n).encode() * 3000 for n in range(120))
        here.put(bytes(bodies.BATCH_BYTES))
    with closing(Bucket(s3.address("copied"))) as there:
        there.put_many(str(n).encode() * 3000 for n in range(50))  # of a copy that broke off
        code, said = invoke("copy", str(tmp_path / "here"), "s3://fleet/copied", "--verify", *options)
        assert (code, "71 copied" in said) == (0, True), said
        assert invoke("copy", str(tmp_path / "here"), "s3://fleet/copied", *options)[1].count(": 0 copied") == 1
        assert len(there) == 121
        put_raw(s3, "copied", names[3], b"damaged there")
        with pytest.raises(StoreError, match=f"1 blobs are damaged, and not copied, as {names[3]}"):
            invoke("copy", "s3://fleet/copied", str(tmp_path / "back"), *options)
        with pytest.raises(StoreError, match=f"1 blobs are damaged, as {names[3]}"):
            invoke("copy", str(tmp_path / "here"), "s3://fleet/copied", "--verify", *options)
    with closing(Shards(tmp_path / "back")) as back:
        assert len(back) == 120
        assert back.get(names[4]) == b"4" * 3000
    with pytest.raises(StoreError, match="no such folder"):
        invoke("copy", str(tmp_path / "nowhere"), "s3://fleet/copied", *options)
