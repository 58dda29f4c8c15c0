"""On what does a model run, and is what cannot be said aloud?

The onnxruntime of constraints.txt has the processor alone. These tests hold for any build: with another's wheel
unpacked into a folder that PYTHONPATH names (onnxruntime-gpu, onnxruntime-openvino), they try that one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import onnxruntime as ort
import pytest
from quadrants import ARTIFACT, artifact
from test_agent import beat, configure, here  # noqa: F401 - a fixture

from edge_agent import parts
from edge_agent.__main__ import main
from edge_agent.config import load_config
from edge_agent.contract.artifact import Golden, Tensor, decode_manifest
from edge_agent.contract.errors import ConfigError, IncompatibleError
from edge_agent.loader import load
from edge_agent.model import EXIT_REFUSED
from edge_agent.providers import KNOWN, PROCESSOR, Chain, Providers

LACKING = [name for name, full in KNOWN.items() if full not in ort.get_available_providers()]
SHA = "ab" * 32


@pytest.mark.skipif(not {"tensorrt", "cuda"} <= set(LACKING), reason="this build has them")
def test_what_this_build_lacks_is_passed_over_and_each_is_named() -> None:
    told: list[str] = []
    model = load(ARTIFACT, Providers(("tensorrt", "cuda", "cpu")), variant="cpu-fp32", passed_over=told.append)
    assert model.provider == "cpu"
    lacks = f"not in this build of onnxruntime {ort.__version__}"
    assert told == [f"tensorrt: {lacks}", f"cuda: {lacks}"]


def test_whatever_a_build_has_a_model_runs_with_its_golden_answers_on_it_or_past_it(tmp_path: Path) -> None:
    told: list[str] = []
    providers = Providers(tuple(KNOWN), engines=tmp_path)
    model = load(ARTIFACT, providers, variant="cpu-fp32", passed_over=told.append)
    model.check_golden()
    without = [line.split(":")[0] for line in told]
    assert [*without, model.provider] == list(KNOWN)[: len(without) + 1]
    again: list[str] = []
    assert load(ARTIFACT, providers, variant="cpu-fp32", passed_over=again.append).provider == model.provider
    assert [line.split(":")[0] for line in again] == without  # by what is kept of the first try, and told again


@pytest.mark.parametrize("names", [(), ("cpu",), ("cpu", "cpu")])
def test_the_processor_is_always_there_and_last(names: tuple) -> None:
    assert [tried.chain for tried in Providers(names).tries(SHA)] == [PROCESSOR]
    assert Providers(("cpu", "cuda", "acl", "cuda")).names == ("cuda", "acl", "cpu")


def test_a_provider_is_tried_with_those_after_it_and_once_it_failed_without_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(KNOWN.values()))

    def tried(sha256: str = SHA) -> list[tuple[tuple[str, ...], str]]:
        providers = Providers(("tensorrt", "cuda"), engines=tmp_path)
        return [(chain.names if chain else (), why) for chain, why in providers.tries(sha256)]

    assert tried() == [(("tensorrt", "cuda", "cpu"), ""), (("cuda", "cpu"), ""), (("cpu",), "")]
    Providers(("tensorrt", "cuda"), engines=tmp_path).failed("cuda", SHA, "off by 3")
    assert tried() == [(("tensorrt", "cpu"), ""), ((), "cuda: off by 3"), (("cpu",), "")]
    assert tried("cd" * 32)[0] == (("tensorrt", "cuda", "cpu"), "")
    monkeypatch.setattr(ort, "__version__", "99.0")  # a new onnxruntime is a new chance
    assert tried()[1] == (("cuda", "cpu"), "")


def test_a_provider_that_failed_is_tried_again_after_a_week_and_forgiven_once_it_runs(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(KNOWN.values()))
    now_s = [time.time()]
    providers = Providers(("cuda",), engines=tmp_path, wall_s=lambda: now_s[0])
    providers.failed("cuda", SHA, "no driver")
    for days, found in ((0.0, "cuda: no driver"), (6.9, "cuda: no driver"), (7.1, "")):
        now_s[0] = time.time() + 86_400.0 * days
        assert next(providers.tries(SHA)).why_not == found
    now_s[0] = time.time()
    providers.used(SHA, "cuda")
    assert next(providers.tries(SHA)).chain is not None


def test_engines_are_kept_apart_by_the_hash_of_the_file_and_go_with_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(KNOWN.values()))
    providers = Providers(("tensorrt",), engines=tmp_path, precision="fp16")
    (first, *_), (other, *_) = (list(providers.tries(sha)) for sha in (SHA, "cd" * 32))
    assert first.chain is not None
    assert other.chain is not None
    name, options = first.chain.for_onnxruntime()[0]
    assert name == "TensorrtExecutionProvider"
    assert options["trt_engine_cache_path"] == str(tmp_path / SHA)
    assert options["trt_engine_cache_enable"] == options["trt_fp16_enable"] == "True"
    assert options["trt_int8_enable"] == "False"
    assert other.chain.options[0]["trt_engine_cache_path"] != options["trt_engine_cache_path"]
    assert msgspec.json.decode(msgspec.json.encode(first.chain), type=Chain) == first.chain
    for age, sha in enumerate((SHA, "cd" * 32, "ef" * 32)):
        (tmp_path / sha).mkdir(exist_ok=True)
        os.utime(tmp_path / sha, (1e9 - age, 1e9 - age))
    providers.used("ef" * 32)
    providers.sweep(2)
    assert {path.name for path in tmp_path.iterdir()} == {SHA, "ef" * 32}


@pytest.mark.skipif("tensorrt" not in LACKING, reason="this build has TensorRT")
def test_an_agent_that_asks_for_a_gpu_in_vain_runs_and_says_so(here: Path, capsys, caplog) -> None:  # noqa: F811
    config = configure(here, model='first"\nproviders = ["tensorrt", "cuda", "cpu"]\nprecision = "fp16')
    assert main(["check", str(config)]) == 0
    said = capsys.readouterr().out
    assert "golden test passed, runs on cpu" in said
    assert "# it does without tensorrt: not in this build of onnxruntime" in said
    assert main(["run", str(config)]) == 0
    found = beat(here)
    assert found.model.provider == "cpu"
    assert found.counts.read == 500
    told = [line for line in caplog.messages if "does without" in line]
    assert [line.split(":")[0] for line in told] == ["error", "error"]
    assert "[model] providers: version 1 does without tensorrt: not in this build" in told[0]
    assert main(["status", str(config)]) == 0
    assert ") on cpu\n" in capsys.readouterr().out


def test_an_unknown_provider_is_refused_by_name(here: Path) -> None:  # noqa: F811
    with pytest.raises(ConfigError, match=r"model.providers\[0\]: Invalid enum value 'gpu'"):
        load_config(configure(here, model='first"\nproviders = ["gpu"]\nvariant = "cpu-fp32'))


def test_the_check_of_a_new_version_fails_when_the_processor_fails_it(tmp_path: Path) -> None:
    golden = decode_manifest((ARTIFACT / "manifest.json").read_bytes()).golden
    off = golden.logits.array() + 0.1
    artifact(tmp_path / "7", golden=Golden(inputs=golden.inputs, logits=Tensor.of(off), tolerance=0.01))
    with pytest.raises(IncompatibleError, match="golden input 0 is off by 0.1"):
        parts.check_in_child(
            tmp_path / "7", variant="cpu-fp32", providers=Providers(("cuda",)), timeout_s=60.0, memory_bytes=0,
            stop=threading.Event(),
        )  # fmt: skip


def test_the_check_runs_on_the_chain_that_it_is_given_and_no_other() -> None:
    def check(chain: Chain) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "edge_agent.model", ARTIFACT, "cpu-fp32", msgspec.json.encode(chain).decode()]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    assert check(PROCESSOR).returncode == 0
    missing = LACKING[0]
    done = check(Chain((missing, "cpu"), ({}, {})))
    assert done.returncode == EXIT_REFUSED
    assert missing in done.stdout


AZURE = "AzureExecutionProvider"  # of PyPI's build: it takes no node of a graph like ours, and leaves all to the next
with_azure = pytest.mark.skipif(AZURE not in ort.get_available_providers(), reason="this build has no second provider")


@with_azure
def test_a_provider_that_takes_nothing_is_not_said_to_execute(monkeypatch) -> None:
    monkeypatch.setitem(KNOWN, "acl", AZURE)
    told: list[str] = []
    model = load(ARTIFACT, Providers(("acl",)), variant="cpu-fp32", passed_over=told.append)
    assert "acl" in next(iter(Providers(("acl",)).tries(SHA))).chain.names
    assert told == []
    assert model.provider == "cpu" or not hasattr(ort.InferenceSession, "get_provider_graph_assignment_info")


@with_azure
def test_a_provider_that_gives_other_answers_is_passed_over_and_not_asked_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(KNOWN, "acl", AZURE)
    golden = decode_manifest((ARTIFACT / "manifest.json").read_bytes()).golden
    off = golden.logits.array() + 0.1
    artifact(tmp_path / "7", golden=Golden(inputs=golden.inputs, logits=Tensor.of(off), tolerance=0.01))
    told: list[str] = []
    for _ in range(2):
        providers = Providers(("acl",), engines=tmp_path / "engines")
        model = load(tmp_path / "7", providers, variant="cpu-fp32", passed_over=told.append)
        assert model.provider == "cpu"
    assert len(told) == 2
    assert told[0].startswith("acl: version")
    assert "golden input 0 is off by 0.1" in told[1]


def test_what_fails_in_the_child_costs_the_provider_and_not_the_version(tmp_path: Path, monkeypatch) -> None:
    missing = LACKING[0]
    there = [*ort.get_available_providers(), KNOWN[missing]]
    monkeypatch.setattr(ort, "get_available_providers", lambda: there)  # here; in the child it is not
    providers = Providers((missing,), engines=tmp_path / "engines")
    parts.check_in_child(
        ARTIFACT, variant="cpu-fp32", providers=providers, timeout_s=60.0, memory_bytes=0, stop=threading.Event()
    )
    sha256 = decode_manifest((ARTIFACT / "manifest.json").read_bytes()).variant("cpu-fp32").sha256
    first = next(iter(providers.tries(sha256)))
    assert first.chain is None
    assert first.why_not.startswith(f"{missing}: ")
