"""What can be set on the server?

One file, `server.toml`; every key has a default. `winnow-server check server.toml` prints what is in force.
"""

from __future__ import annotations

import ipaddress
import re
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from edge_agent.contract import settings
from edge_agent.contract.errors import ConfigError, did_you_mean
from edge_agent.contract.task import Task
from edge_agent.contract.types import is_name
from edge_agent.contract.wire import ROOT
from server.errors import ServerConfigError

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Dial = Literal["propose", "approve", "auto"]
SQLITE, POSTGRESQL = "sqlite", "postgresql"  # what keeps a catalogue, as its URL begins
BUCKET_URL = re.compile(r"s3://([a-z0-9][a-z0-9.\-]{1,61}[a-z0-9])((?:/(?!\.)[\w.=\-]+)*)/?", re.ASCII)
"""S3's rules for the name of a bucket, and of a key what no server takes amiss."""
STABLE = "stable"  # the channel that a device is in unless an operator says otherwise


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


class Server(Section, frozen=True, kw_only=True):
    """What this server is."""

    fleet: Annotated[str, Meta(description="name of the fleet it serves")] = "default"
    data_dir: Annotated[str, Meta(description="folder for the catalogue, the blobs and the models")] = (
        "winnow-server-data"
    )
    lease_s: Annotated[
        float,
        Meta(
            ge=3.0,
            le=600.0,
            description="time after which another process takes over from one that leads and is not heard of",
        ),
    ] = 15.0
    listen: Annotated[
        str, Meta(description="address of this machine on which devices reach it; `0.0.0.0`: every one; else loopback")
    ] = "127.0.0.1"
    names: Annotated[
        tuple[str, ...],
        Meta(description="names and addresses by which devices call it, the first one told to new devices"),
    ] = ()
    task: Annotated[
        Task,
        Meta(
            description="what its models say of a sample, and people label: one class, every class that applies, boxes, or numbers"
        ),
    ] = "classification"


class Store(Section, frozen=True, kw_only=True):
    """Where what the server remembers lies: see [store.md](../store.md)."""

    url: Annotated[
        str,
        Meta(
            description="of the catalogue: `postgresql://user@host:5432/name?sslmode=verify-full`, or `sqlite:///PATH`; empty: `catalogue.db` in the data folder"
        ),
    ] = ""
    password_file: Annotated[str, Meta(description="file with the password for PostgreSQL; empty: none is needed")] = ""
    blobs: Annotated[
        str,
        Meta(
            description="of samples and models: `s3://bucket/prefix`, or a folder; empty: `blobs` in the data folder; see [blobs.md](../blobs.md)"
        ),
    ] = ""
    s3_endpoint: Annotated[
        str,
        Meta(
            description="`https://host:port` of an S3 that is not AWS's; credentials are looked for as AWS's tools do"
        ),
    ] = ""
    s3_region: Annotated[str, Meta(description="of the bucket; empty: as AWS's tools find it, else us-east-1")] = ""

    @property
    def shared(self) -> bool:
        """Whether servers on several machines may work on the catalogue."""
        return urlsplit(self.url).scheme == POSTGRESQL


class Identity(Section, frozen=True, kw_only=True):
    """How devices become members of the fleet; in force once `winnow-server init` has made a fleet CA."""

    port: Annotated[int, Meta(ge=1, le=65535, description="of HTTPS, for enrolment and renewal")] = 8884
    certificate_days: Annotated[
        float,
        Meta(gt=0.0, le=3650.0, description="time of a device's certificate; it renews itself after half of it"),
    ] = 90.0
    token_minutes: Annotated[
        float, Meta(gt=0.0, le=1440.0, description="time of an enrolment token, which is good once")
    ] = 15.0


class Broker(Section, frozen=True, kw_only=True):
    """Where the MQTT broker is."""

    url: Annotated[
        str,
        Meta(
            description="`mqtt://host:port` or `mqtts://host:port` of a running broker; empty: start mosquitto as a child"
        ),
    ] = ""
    username: Annotated[str, Meta(description="for that broker; empty: none")] = ""
    password_file: Annotated[str, Meta(description="file with the password")] = ""
    ca_file: Annotated[str, Meta(description="certificates that its own is checked against; empty: the system's")] = ""
    cert_file: Annotated[str, Meta(description="the server's certificate for it; empty: none")] = ""
    key_file: Annotated[str, Meta(description="its key; empty: in the same file")] = ""
    plain: Annotated[
        bool, Meta(description="the child listens without TLS and lets in anybody on this machine, and nobody else")
    ] = False
    port: Annotated[
        int, Meta(ge=0, le=65535, description="of the child; 0: chosen by the system, kept for later starts")
    ] = 0
    binary: Annotated[str, Meta(description="path of mosquitto; empty: looked for")] = ""


class Collect(Section, frozen=True, kw_only=True):
    """How samples are taken in: see [workers.md](../workers.md) for more processes than one."""

    workers: Annotated[
        int,
        Meta(
            ge=0,
            le=64,
            description="processes that `run` and `ingest` start to take in, and start again when they end; 0: the program itself takes in",
        ),
    ] = 0
    divide: Annotated[
        Literal["auto", "devices"],
        Meta(
            description="what each of several takes: `auto`, what the broker gives it, where the broker proves that it shares a subscription; `devices`, and else: the devices that are its own by a hash of their names"
        ),
    ] = "auto"

    commit_rows: Annotated[int, Meta(ge=1, le=10_000, description="samples to one commit at most")] = 1000
    offline_after_s: Annotated[float, Meta(gt=0.0, description="silence after which a device counts as offline")] = 90.0
    backlog_bytes: Annotated[
        int,
        Meta(
            ge=1_000_000,
            description="messages that may wait to be taken in, and as many again of images to be decoded; beyond it the broker is held back",
        ),
    ] = 128_000_000
    device_share: Annotated[
        float,
        Meta(
            gt=0.0,
            le=1.0,
            description="part of it that one device may fill; what it sends beyond is left without a receipt, counted as `throttled`, and comes again",
        ),
    ] = 0.25
    device_messages_per_s: Annotated[
        float, Meta(ge=0.0, description="messages taken in of one device, on average over 10 s; 0: no limit")
    ] = 0.0
    device_bytes_per_s: Annotated[
        float, Meta(ge=0.0, description="bytes taken in of one device, on average over 10 s; 0: no limit")
    ] = 0.0


class Labeler(Section, frozen=True, kw_only=True):
    """Who answers."""

    kind: Annotated[
        str,
        Meta(
            description="`human` (people, by `winnow-server label`), `label_studio`, `oracle` (known truth, for replays), or `package.module:name`; empty: nobody"
        ),
    ] = ""
    files: Annotated[
        tuple[str, ...], Meta(description="for `oracle`: the .npz files that the devices replay, with `y` and `names`")
    ] = ()
    batch: Annotated[int, Meta(ge=1, description="samples handed to the labeler at once")] = 64
    strategy: Annotated[
        Literal["auto", "arrival", "gumbel", "margin_k_centre", "badge", "k_centre", "typical", "balanced"],
        Meta(
            description="the audit first, then: `arrival`, the oldest; `gumbel`, drawn by utility; `margin_k_centre`, `badge`, `k_centre`, `typical`, `balanced`: by what the champion makes of them; `auto`: `arrival` without a budget, else what the evidence favours"
        ),
    ] = "auto"
    labels_per_day: Annotated[
        int,
        Meta(ge=0, description="most samples handed to the labeler in any 24 hours; 0: no end, and all are labelled"),
    ] = 0
    exploration: Annotated[
        Share,
        Meta(
            description="part of a day's labels drawn alike from all that the strategy leaves; 0 makes estimates from them impossible"
        ),
    ] = 0.1
    duplicate_cosine: Annotated[
        float,
        Meta(
            gt=0.0,
            description="likeness of two samples' embeddings from which a budget pays for one label only; above 1: identical ones only",
        ),
    ] = 0.995
    teacher: Annotated[
        str,
        Meta(
            description="a larger model that labels what it is sure of, before the labeler is asked: an artifact folder, or `package.module:name`; empty: none"
        ),
    ] = ""
    teacher_max_error: Annotated[
        float,
        Meta(
            gt=0.0,
            lt=1.0,
            description="share of its labels that may be wrong; by what people say of the same samples it learns how sure that takes",
        ),
    ] = 0.05
    teacher_check_share: Annotated[
        Share, Meta(description="part of what it labels that people label too; 0: its error stays unknown")
    ] = 0.1
    lease_s: Annotated[
        float, Meta(gt=0.0, description="time in which a person has a sample to himself; then another may get it")
    ] = 300.0
    overlap_share: Annotated[Share, Meta(description="part of the questions that two people are asked, not one")] = 0.0
    most_labelers: Annotated[
        int, Meta(ge=1, description="people that are asked about one sample at most, where they differ")
    ] = 3
    gold_share: Annotated[
        Share, Meta(description="part of a person's questions whose answer is known, where there are any")
    ] = 0.05
    blind_share: Annotated[
        Share, Meta(description="part of a person's questions asked without the model's guess, to see what it sways")
    ] = 0.1
    prices: Annotated[
        tuple[str, ...],
        Meta(description='of a label, by kind of labeler: `["human=30/h", "teacher=0.001", "label_studio=0.05"]`'),
    ] = ()
    currency: Annotated[str, Meta(description="of the prices")] = "EUR"


class LabelStudio(Section, frozen=True, kw_only=True):
    """Where Label Studio is, for `[labeler] kind = "label_studio"`."""

    url: Annotated[str, Meta(description="`http://host:port`")] = "http://127.0.0.1:8080"
    token_file: Annotated[str, Meta(description="file with an access token, of the legacy kind or a personal one")] = ""
    project: Annotated[int, Meta(ge=1, description="number of the project; it has a `<Choices>` over an `<Image>`")] = 1


class Choose(Section, frozen=True, kw_only=True):
    """What the devices are told of choosing."""

    portfolio: Annotated[
        tuple[str, ...],
        Meta(
            description='arms tried side by side on parts of the fleet, the better the more: acquisition functions, strategies, or `strategy/acquisition`, as `["margin", "entropy", "vessal"]`; empty: every device goes by its own configuration'
        ),
    ] = ()


class Snapshot(Section, frozen=True, kw_only=True):
    """What a model learns from and is judged by: see [data.md](../data.md)."""

    near_duplicates: Annotated[
        Literal["leave_out", "refuse", "keep"],
        Meta(
            description="samples to train on that show what a held-out one shows: `leave_out` and count them, `refuse` to train, or `keep` them (a scene that stands still)"
        ),
    ] = "leave_out"
    duplicate_cosine: Annotated[
        float,
        Meta(
            gt=0.0,
            description="likeness of embeddings from which two that look the same do show the same, where the champion has seen both",
        ),
    ] = 0.98
    max_duplicate_share: Annotated[
        Share,
        Meta(description="part of what would be trained on that may be left out so; beyond it nothing is trained"),
    ] = 0.5
    embargo_samples: Annotated[
        int,
        Meta(
            ge=0,
            description="samples before and after a held-out one, in its run of its stream, that are not trained on; 0: none",
        ),
    ] = 0
    forward_hours: Annotated[
        float,
        Meta(
            ge=0.0,
            description="newest hours of which only what is held out is used, so that a model is judged on a time later than all it learned from; 0: none",
        ),
    ] = 0.0
    holdout_devices: Annotated[
        tuple[str, ...],
        Meta(description="devices none of whose samples are trained on; those held out of them judge, as all others"),
    ] = ()
    max_damaged_share: Annotated[
        Share,
        Meta(description="part of a split that may be left out since its bytes are damaged; beyond it a round fails"),
    ] = 0.05


class Teach(Section, frozen=True, kw_only=True):
    """When and how a new model is made."""

    enabled: Annotated[bool, Meta(description="begin rounds; false: only those that somebody asks for")] = True
    labels_per_round: Annotated[int, Meta(ge=1, description="new labels from devices that start a round")] = 200
    max_age_days: Annotated[
        float, Meta(ge=0.0, description="age of the version from which any new label starts a round; 0: no matter")
    ] = 0.0
    harm_tolerance: Annotated[
        Share,
        Meta(
            description="errors on the audit's labels that the version may make more than when it was published; beyond it, when the labels prove it, a round starts"
        ),
    ] = 0.02
    harm_labels: Annotated[
        float,
        Meta(ge=0.0, description="labels of the audit between two false alarms of harm, on average; 0: nobody looks"),
    ] = 5000.0
    max_rounds: Annotated[int, Meta(ge=0, description="rounds after which no more are started; 0: no end")] = 0
    trainer: Annotated[
        str, Meta(description="`package.module:name` of your own (docs/training.md); empty: the one that comes with us")
    ] = ""
    recipe: Annotated[
        str,
        Meta(
            description="`cnn`, `cnn1d`, `mlp`, `text`, `lite0` or `package.module:name`; empty: the champion's, else by input shape. What is not said below is the recipe's to say: its TOML file in `models/recipes/`"
        ),
    ] = ""
    heads: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="on one body; of several, a committee, devices can measure disagreement (`[choose] acquisition`)"
        ),
    ] = None
    epochs: Annotated[Annotated[int, Meta(ge=1)] | None, Meta(description="passes over the snapshot")] = None
    batch_size: Annotated[Annotated[int, Meta(ge=2)] | None, Meta(description="samples to a step")] = None
    learning_rate: Annotated[
        Annotated[float, Meta(gt=0.0)] | None, Meta(description="highest of the one-cycle schedule")
    ] = None
    part: Annotated[
        Literal["whole", "gently", "head"] | None,
        Meta(
            description="what learns on from the champion: the `whole` net; all of it but `gently`, no weight far from where it was; its `head` alone. The less, the fewer bytes go to devices (see `benchmarks/delta.py`)"
        ),
    ] = None
    shrink: Annotated[
        Annotated[float, Meta(ge=0.0, le=1.0)] | None,
        Meta(description="what is kept of the champion's weights at the start, with a little noise added; 1: all"),
    ] = None
    distil: Annotated[
        Annotated[float, Meta(ge=0.0)] | None,
        Meta(
            description="how much the candidate is to say what the champion says, above all where that was right; more breaks less and learns less; 0: not at all"
        ),
    ] = None
    ema: Annotated[
        Annotated[float, Meta(ge=0.0, lt=1.0)] | None,
        Meta(description="of the running average of the weights, which is what is kept; 0: the last weights are"),
    ] = None
    augment: Annotated[
        tuple[str, ...] | None,
        Meta(
            description="changes that leave the class as it is: `shift`, `flip`, `crop`, `brightness` of images; `jitter`, `scale`, `shift` of series; `jitter` of vectors"
        ),
    ] = None
    replay: Annotated[
        Annotated[float, Meta(ge=0.0, le=1.0)] | None,
        Meta(description="how often what the champion knew comes, against what is new; 1: as often"),
    ] = None
    patience: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(
            description="epochs without gain on a part of the training samples (whole devices, or the latest) after which training stops; 0: nothing is kept back for that",
        ),
    ] = None
    importance_clip: Annotated[
        Annotated[float, Meta(ge=0.0)] | None,
        Meta(
            description="train with weights 1 / probability of selection, none above this many means; it seldom helps; 0: all alike",
        ),
    ] = None
    pseudo_labels: Annotated[
        float,
        Meta(
            ge=0.0,
            le=1.0,
            description="learn from uploads that wait for a label too, where the net is so sure of them; 0: not at all",
        ),
    ] = 0.0
    precision: Annotated[
        Literal["auto", "fp32", "bf16"] | None,
        Meta(description="of training; `auto`: bf16 on a GPU that has it"),
    ] = None
    compile: Annotated[
        Literal["on", "off"] | None,
        Meta(description="by torch.compile, which needs a C compiler; off where nobody says otherwise"),
    ] = None
    pieces: Annotated[
        bool | None,
        Meta(
            description="of several processes each has a part of every weight (FSDP2), for nets too large for one GPU; otherwise a copy (DDP)"
        ),
    ] = None
    threads: Annotated[int, Meta(ge=1, description="torch threads, of each process")] = 1
    launch: Annotated[
        Literal["here", "torchrun", "ray"],
        Meta(
            description="who learns: one process; several that are started by `torchrun`; workers of Ray Train (`winnow-edge[ray]`). docs/training.md says what is the same"
        ),
    ] = "here"
    processes: Annotated[
        int, Meta(ge=0, description="processes of each machine, of `ray` in all; 0: one for each GPU, or one")
    ] = 0
    nodes: Annotated[int, Meta(ge=1, description="machines of `torchrun`; the others run `python -m models.node`")] = 1
    rendezvous: Annotated[
        str,
        Meta(
            description="`host:port` of this machine where the others find it; of `ray` the address of its cluster, empty: one of its own"
        ),
    ] = ""
    int8: Annotated[bool, Meta(description="quantise to int8; otherwise fp32 is shipped")] = True
    seed: Annotated[int, Meta(ge=0, description="of initialisation and order")] = 0


class Gates(Section, frozen=True, kw_only=True):
    """What a candidate must show against the champion."""

    max_drop: Annotated[
        Share, Meta(description="accuracy it may lose on any slice: surely more blocks; of imports, what it must keep")
    ] = 0.03
    min_gain: Annotated[float, Meta(description="accuracy it must gain on the stream's held-out labels")] = 0.0
    max_negative_flips: Annotated[
        Share, Meta(description="share of held-out samples that may be right before and wrong now")
    ] = 0.08
    max_ece_rise: Annotated[
        Share, Meta(description="by how much its expected calibration error may rise, beyond what is chance")
    ] = 0.03
    max_brier_rise: Annotated[float, Meta(ge=0.0, le=2.0, description="by how much its Brier score may rise")] = 0.05
    max_corrupted_drop: Annotated[
        Share, Meta(description="accuracy it may lose on disturbed samples, on the mean of the corruptions")
    ] = 0.1
    max_corruption_drop: Annotated[Share, Meta(description="accuracy it may lose under any one of them")] = 0.25
    max_ood_drop: Annotated[
        Share, Meta(description="AUROC it may lose in telling what belongs to no class from what does")
    ] = 0.1
    max_forgotten: Annotated[
        Share, Meta(description="accuracy it may lose against an earlier version, on what was held out then")
    ] = 0.05
    max_label_disagreement: Annotated[
        Share,
        Meta(
            description="share of a device's or a labeler's labels that may be contradicted, beyond that of all others"
        ),
    ] = 0.1
    min_int8_agreement: Annotated[Share, Meta(description="share of held-out inputs on which int8 and fp32 agree")] = (
        0.97
    )
    max_int8_drop: Annotated[Share, Meta(description="accuracy that int8 may lose against fp32")] = 0.01
    budgets: Annotated[
        tuple[str, ...],
        Meta(
            description='what boards bear, `["pi4 = 20 ms, 5 MB, x 9"]`: the time of a sample and the size of the file; `x 9`: it takes nine times as long there as on the server; `as cam-1`: by what that device says of the champion'
        ),
    ] = ()
    min_samples: Annotated[int, Meta(ge=1, description="held-out samples below which a slice is not judged")] = 30
    confidence: Annotated[Share, Meta(description="of the intervals")] = 0.95


class RingRules(Section, frozen=True, kw_only=True):
    """When one ring of a rollout is through, and when the rollout halts there."""

    soak_s: Annotated[
        float,
        Meta(
            ge=0.0,
            description="seconds that a device must have run the version for the next ring to start; the last ring, which nobody follows, soaks only by a rule of its own",
        ),
    ] = 10.0
    min_reported: Annotated[
        int, Meta(ge=0, description="devices that must run it, those of the rings before included; rings take as many")
    ] = 1
    success_share: Annotated[
        Share,
        Meta(
            description="share of a ring that must run it, of those that have not failed; below 1 stragglers are not waited for"
        ),
    ] = 1.0
    max_failed_share: Annotated[
        Share, Meta(description="share of a ring that may fail (refuse it, revert, run another, fall silent)")
    ] = 0.0
    max_failed: Annotated[
        int, Meta(ge=0, description="devices of a ring that may fail, whatever their share; 0: the share alone counts")
    ] = 0
    timeout_s: Annotated[
        float,
        Meta(
            gt=0.0,
            description="seconds without a step forward after which a device counts as failed; a percent more of a fetch, a shadow or a probation is one",
        ),
    ] = 600.0
    needs_approval: Annotated[bool, Meta(description="start only when `winnow-server rollout approve` says so")] = False
    max_latency_ratio: Annotated[
        float,
        Meta(
            ge=0.0,
            description="p95 of an inference against the version before on the same device, at the median device; 0: not judged",
        ),
    ] = 3.0
    max_confidence_drop: Annotated[
        Share,
        Meta(
            description="mean confidence it may lose against the version before on the same devices, beyond what the manifests expect, at the friendlier end of the interval; 1: not judged"
        ),
    ] = 0.1
    max_accuracy_drop: Annotated[
        Share,
        Meta(
            description="accuracy it may lose against the version before on the same devices, by labels that have come, at the friendlier end of the interval; 1: not judged"
        ),
    ] = 0.05


class Rollout(RingRules, frozen=True, kw_only=True):
    """How a version reaches the fleet: ring by ring. What is said of a ring here holds for all of them."""

    rings: Annotated[
        tuple[str, ...],
        Meta(
            description="`name=10%` of the fleet, `name=5` devices (rings before included, one at least), `name=cam-1+cam-2`; the last, a plain name, takes everybody"
        ),
    ] = ("canary=10%", "all")
    rules: Annotated[
        tuple[str, ...], Meta(description='for one ring alone: `["canary.soak_s=3600", "all.needs_approval=true"]`')
    ] = ()
    bytes_per_s: Annotated[
        float,
        Meta(
            ge=0.0,
            description="most bytes of models a second, to all devices together, as messages and by HTTPS; 0: no limit",
        ),
    ] = 10_000_000.0


class Autonomy(Section, frozen=True, kw_only=True):
    """How much is done without being told, and where."""

    dial: Annotated[
        Dial,
        Meta(
            description="`auto`: what passed its gates is rolled out; `approve`: it waits for `winnow-server rollout approve`; `propose`: it is only proposed, and so are rounds of training"
        ),
    ] = "auto"
    channels: Annotated[
        tuple[str, ...],
        Meta(
            description='for channels of their own, as `["stable=approve", "beta=auto"]`; others than these and `stable` are rolled out to by hand. Rounds begin by themselves unless all say `propose`'
        ),
    ] = ()

    def dials(self) -> dict[str, Dial]:
        """By channel, of those that are rolled out to without a word. ServerConfigError when `channels` is no such list.

        >>> Autonomy(dial="approve", channels=("beta=auto",)).dials()
        {'stable': 'approve', 'beta': 'auto'}
        """
        found: dict[str, Dial] = {STABLE: self.dial}
        for spec in self.channels:
            name, _, word = spec.partition("=")
            if not is_name(name) or word not in get_args(Dial):
                raise ServerConfigError(
                    f"[autonomy] channels: got {spec!r}, expected CHANNEL={'|'.join(get_args(Dial))}"
                )
            found[name] = msgspec.convert(word, Dial)
        return found


class Web(Section, frozen=True, kw_only=True):
    """The pages, and the API under them."""

    enabled: Annotated[bool, Meta(description="serve them")] = True
    listen: Annotated[
        str,
        Meta(
            description="address; beyond this machine only with TLS (`cert_file`), or behind a proxy that says who comes (`user_header`)"
        ),
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="0: chosen by the system; `web.url` in the data folder")] = (
        8080
    )
    cert_file: Annotated[str, Meta(description="certificate for TLS; empty: none")] = ""
    key_file: Annotated[str, Meta(description="its key; empty: in the same file")] = ""
    user_header: Annotated[
        str,
        Meta(
            description="header in which a proxy that has signed people in (OIDC or whatever) names them, as `X-Forwarded-User`; empty: passwords"
        ),
    ] = ""
    proxies: Annotated[tuple[str, ...], Meta(description="addresses from which that header is believed")] = (
        "127.0.0.1",
        "::1",
    )
    session_hours: Annotated[float, Meta(gt=0.0, description="after which a person signs in again")] = 12.0


class Drift(Section, frozen=True, kw_only=True):
    """Whether the streams of the fleet are as they were."""

    false_verdicts_per_month: Annotated[
        float,
        Meta(
            ge=0.0,
            le=30.0,
            description="verdicts on who has moved, and how, that may be wrong in a month, of the whole fleet, while nothing moves; 0: nobody looks",
        ),
    ] = 1.0


class Alarms(Section, frozen=True, kw_only=True):
    """When somebody is to be told: see [monitoring.md](../monitoring.md)."""

    silent_s: Annotated[
        float, Meta(gt=0.0, description="seconds that a device may be offline before it is an alarm")
    ] = 900.0
    queue_full: Annotated[
        int, Meta(ge=0, description="samples waiting for a label above which it is an alarm; 0: never")
    ] = 10_000
    queue_empty_s: Annotated[
        float,
        Meta(
            ge=0.0,
            description="seconds without a new sample, while none waits for a label, after which it is an alarm; 0: never",
        ),
    ] = 3600.0


RetentionClass = Literal["unlabelled", "audit", "labelled", "held_out"]
LOOKS_BACK_DAYS = 31
"""As long as accuracies, rollouts' figures and comparisons with the random arm look back, and a day."""


class Retention(Section, frozen=True, kw_only=True):
    """How long what comes in is kept, and in which detail: see [retention.md](../retention.md)."""

    classes: Annotated[
        tuple[str, ...],
        Meta(
            description='days that samples are kept, by their class: `["unlabelled=90", "audit=365", "labelled=1000", "held_out=1000"]`; what is not named is kept for ever, and what something rests on always'
        ),
    ] = ()
    by_rules: Annotated[
        bool,
        Meta(description="also remove what a data rule says was kept for long enough, unless something rests on it"),
    ] = False
    max_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="of the catalogue and the blobs together, above which unlabelled samples go, the least useful first; 0: no bound",
        ),
    ] = 0
    min_free_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="of the disk, below which no sample is taken in: receipts wait, and devices keep what they have",
        ),
    ] = 100_000_000
    slices_days: Annotated[
        int, Meta(ge=1, description="heartbeats are kept in slices of five minutes for so long; then by the hour")
    ] = 2
    hours_days: Annotated[int, Meta(ge=2, description="by the hour for so long; then by the day")] = 60
    events_days: Annotated[
        int, Meta(ge=LOOKS_BACK_DAYS, description="events of devices and of the server, and what is done with")
    ] = 365
    history_days: Annotated[
        int,
        Meta(
            ge=LOOKS_BACK_DAYS,
            description="what devices counted, and how they were by the day, for so long; then it is deleted",
        ),
    ] = 1095

    def days(self) -> dict[RetentionClass, int]:
        """By class; 0: for ever. ServerConfigError when `classes` is no such list, or a class goes too soon.

        >>> Retention(classes=("unlabelled=90",)).days()
        {'unlabelled': 90, 'audit': 0, 'labelled': 0, 'held_out': 0}
        """
        found: dict[RetentionClass, int] = dict.fromkeys(get_args(RetentionClass), 0)
        for spec in self.classes:
            name, equals, days = spec.partition("=")
            if name not in found or not equals or not days.isdecimal():
                near = did_you_mean(name, found)
                raise ServerConfigError(
                    f"[retention] classes: got {spec!r}, expected CLASS=DAYS, with one of {', '.join(found)}{near}"
                )
            least = 1 if name == "unlabelled" else LOOKS_BACK_DAYS
            if 0 < int(days) < least:
                raise ServerConfigError(
                    f"[retention] classes: got {spec!r}, expected at least {least} days, or 0 for ever: accuracies and "
                    "rollouts look back as far, and would be judged by what happens to be left"
                )
            found[msgspec.convert(name, RetentionClass)] = int(days)
        if len({spec.partition("=")[0] for spec in self.classes}) < len(self.classes):
            raise ServerConfigError(f"[retention] classes: got {list(self.classes)}, expected each class once")
        return found


AlarmKind = Literal["silent", "drift", "halted", "queue_empty", "queue_full", "proposed", "disk"]


class Webhook(Section, frozen=True, kw_only=True):
    """Who is told of alarms over HTTP, when they begin and when they are over; one table to each receiver."""

    url: Annotated[str, Meta(description="`https://...` or `http://...` that messages are posted to")] = ""
    events: Annotated[
        tuple[AlarmKind, ...],
        Meta(
            description="`silent` (a device), `drift`, `halted` (a rollout), `queue_empty`, `queue_full` (of labels), `proposed` (a version or a round waits for somebody), `disk` (it fills up)"
        ),
    ] = ("silent", "drift", "halted", "queue_empty", "queue_full", "proposed", "disk")
    secret_file: Annotated[
        str, Meta(description="file with the secret that signs the messages; empty: they are not signed")
    ] = ""
    ca_file: Annotated[
        str, Meta(description="certificates that the receiver's is checked against; empty: those of the system")
    ] = ""


class HomeAssistant(Section, frozen=True, kw_only=True):
    """Devices shown in Home Assistant, by its MQTT discovery: see [monitoring.md](../monitoring.md)."""

    discovery: Annotated[bool, Meta(description="announce every device on the broker")] = False
    prefix: Annotated[str, Meta(description="its discovery prefix, the first part of the topics")] = "homeassistant"
    client: Annotated[
        str,
        Meta(description="name in the certificate by which Home Assistant comes in to the broker that Winnow starts"),
    ] = "home-assistant"


class Govern(Section, frozen=True, kw_only=True):
    """What only people can say of the models, for their cards; what is left empty is said to be missing."""

    intended_use: Annotated[str, Meta(description="what the models are for, and who uses them")] = ""
    out_of_scope: Annotated[str, Meta(description="what they are not to be used for")] = ""
    contact: Annotated[str, Meta(description="who answers for them")] = ""
    personal_data: Annotated[str, Meta(description="what of the samples may tell of a person, and why it is had")] = ""
    model_licence: Annotated[str, Meta(description="SPDX expression, where a manifest states none")] = ""
    data_licence: Annotated[str, Meta(description="SPDX expression of the samples and labels")] = ""


class ServerConfig(Section, frozen=True, kw_only=True):
    """The whole of server.toml."""

    server: Server = Server()
    store: Store = Store()
    identity: Identity = Identity()
    broker: Broker = Broker()
    collect: Collect = Collect()
    labeler: Labeler = Labeler()
    label_studio: LabelStudio = LabelStudio()
    choose: Choose = Choose()
    snapshot: Snapshot = Snapshot()
    teach: Teach = Teach()
    gates: Gates = Gates()
    rollout: Rollout = Rollout()
    autonomy: Autonomy = Autonomy()
    drift: Drift = Drift()
    retention: Retention = Retention()
    web: Web = Web()
    alarms: Alarms = Alarms()
    webhook: tuple[Webhook, ...] = ()
    home_assistant: HomeAssistant = HomeAssistant()
    govern: Govern = Govern()


def load_config(path: Path) -> ServerConfig:
    """Read and check server.toml; relative paths are meant from its folder. ServerConfigError says what to mend."""
    try:
        config = settings.load(path, ServerConfig)
    except ConfigError as error:
        raise ServerConfigError(str(error)) from error
    if not is_name(config.server.fleet):
        raise ServerConfigError(f"{path}: [server] fleet = {config.server.fleet!r}: expected letters, digits, - and _")
    if not _is_address(config.server.listen):
        raise ServerConfigError(f"{path}: [server] listen = {config.server.listen!r}: expected an address: 0.0.0.0")
    for name in config.server.names:
        if not is_host(name):
            raise ServerConfigError(f"{path}: [server] names: got {name!r}, expected a host name or an address")
    config.autonomy.dials()
    _check_retention(config.retention, path)
    _check_blobs(config.store, path)
    _check_web(config.web, path)
    _check_told(config, path)
    _check_launch(config.teach, path)
    if config.broker.url and config.broker.plain:
        raise ServerConfigError(f"{path}: [broker] plain is of the broker that Winnow starts: leave it out beside url")
    folder = path.resolve().parent
    replace = msgspec.structs.replace
    files = {key: getattr(config.broker, key) for key in ("password_file", "ca_file", "cert_file", "key_file")}
    return replace(
        config,
        server=replace(config.server, data_dir=str(folder / config.server.data_dir)),
        store=placed_store(config.store, folder, where=f"{path}: [store] url"),
        broker=replace(config.broker, **{key: str(folder / file) if file else "" for key, file in files.items()}),
        web=replace(
            config.web,
            cert_file=_placed(folder, config.web.cert_file),
            key_file=_placed(folder, config.web.key_file),
        ),
        labeler=replace(
            config.labeler,
            files=tuple(str(folder / file) for file in config.labeler.files),
            teacher=_placed(folder, config.labeler.teacher),
        ),
        label_studio=replace(config.label_studio, token_file=_placed(folder, config.label_studio.token_file)),
        webhook=tuple(
            replace(hook, secret_file=_placed(folder, hook.secret_file), ca_file=_placed(folder, hook.ca_file))
            for hook in config.webhook
        ),
    )


def _placed(folder: Path, place: str) -> str:
    """A path, meant from `folder`; a `package.module:name` and nothing stay what they are."""
    return place if not place or ":" in place else str(folder / place)


def placed_store(store: Store, folder: Path, *, where: str) -> Store:
    """With its paths meant from `folder`; ServerConfigError, which begins with `where`, when the URL cannot be meant.

    >>> placed_store(Store(url="sqlite:///fleet.db"), Path("/etc/winnow"), where="url").url
    'sqlite:////etc/winnow/fleet.db'
    """
    parts, start = urlsplit(store.url), f"{SQLITE}:///"
    if store.url and (parts.scheme not in (SQLITE, POSTGRESQL) or not parts.path.strip("/")):
        expected = "expected postgresql://user@host:5432/name or sqlite:///PATH"
        raise ServerConfigError(f"{where}: got {_unsaid(store.url)!r}, {expected}")
    if parts.scheme == SQLITE and parts.netloc:
        raise ServerConfigError(f"{where}: got {store.url!r}, expected sqlite:///PATH, with three slashes")
    if parts.password or "password=" in parts.query:
        raise ServerConfigError(f"{where} holds a password: put it into a file, and name that as password_file")
    file = store.url.removeprefix(start) if store.url.startswith(start) else ""
    return msgspec.structs.replace(
        store,
        url=start + str(folder / file) if file else store.url,
        password_file=_placed(folder, store.password_file),
        blobs=_placed(folder, store.blobs),
    )


def _check_blobs(store: Store, path: Path) -> None:
    if ":" in store.blobs and not BUCKET_URL.fullmatch(store.blobs):
        raise ServerConfigError(
            f"{path}: [store] blobs: got {_unsaid(store.blobs)!r}, expected s3://bucket/prefix or a folder"
        )
    check_endpoint(store.s3_endpoint, where=f"{path}: [store] s3_endpoint")


def check_endpoint(url: str, *, where: str) -> None:
    """ServerConfigError, which begins with `where`, when it is none of an S3; empty is AWS's."""
    if url and not re.fullmatch(r"https?://[^/@?#]+/?", url):
        raise ServerConfigError(
            f"{where}: got {_unsaid(url)!r}, expected https://host:port; keys belong where AWS's tools look for them "
            "(docs/blobs.md)"
        )


def _unsaid(url: str) -> str:
    """A URL as it may be shown."""
    return re.sub(r"(?<=:)[^:@/]*(?=@)", "...", url)


def _check_retention(retention: Retention, path: Path) -> None:
    retention.days()
    steps = ("slices_days", "hours_days", "history_days")
    for less, more in pairwise(steps):
        if getattr(retention, less) > getattr(retention, more):
            raise ServerConfigError(
                f"{path}: [retention] {less} = {getattr(retention, less)}: expected at most {more}, which is "
                f"{getattr(retention, more)}: one follows the other"
            )


def _check_web(web: Web, path: Path) -> None:
    if not _is_address(web.listen):
        raise ServerConfigError(f"{path}: [web] listen = {web.listen!r}: expected an address: 127.0.0.1")
    if not (ipaddress.ip_address(web.listen).is_loopback or web.cert_file or web.user_header):
        raise ServerConfigError(
            f"{path}: [web] listen = {web.listen!r}: passwords would go over the network in the clear: set cert_file, "
            "or leave it on this machine behind a proxy that has TLS"
        )


def _check_launch(teach: Teach, path: Path) -> None:
    if teach.launch == "here" and (teach.processes > 1 or teach.nodes > 1 or teach.rendezvous):
        raise ServerConfigError(
            f"{path}: [teach] launch = 'here' is one process: say launch = 'torchrun' or 'ray', or leave processes, nodes "
            "and rendezvous out"
        )
    host, _, port = teach.rendezvous.rpartition(":")
    if teach.launch == "torchrun" and teach.nodes > 1 and not (host and port.isdecimal()):
        raise ServerConfigError(
            f"{path}: [teach] rendezvous = {teach.rendezvous!r}: expected host:port of this machine, where the other "
            f"{teach.nodes - 1} find it"
        )
    if teach.launch == "ray" and teach.nodes > 1:
        raise ServerConfigError(f"{path}: [teach] nodes = {teach.nodes}: Ray knows its machines: leave it out")


def _check_told(config: ServerConfig, path: Path) -> None:
    seen: set[str] = set()
    for hook in config.webhook:
        parts = urlsplit(hook.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServerConfigError(f"{path}: [[webhook]] url: got {hook.url!r}, expected https://host/path")
        if hook.url in seen:
            raise ServerConfigError(f"{path}: [[webhook]] url: {hook.url!r} is there twice: name all its events in one")
        seen.add(hook.url)
    if not is_name(config.home_assistant.client):
        raise ServerConfigError(f"{path}: [home_assistant] client: expected letters, digits, - and _")
    prefix = config.home_assistant.prefix
    if not re.fullmatch(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*", prefix) or prefix.split("/")[0] == ROOT.split("/")[0]:
        raise ServerConfigError(
            f"{path}: [home_assistant] prefix: got {prefix!r}, expected a topic such as homeassistant"
        )


def host_of(url: str) -> str:
    """What may be logged of an address: its path or its user may be a secret.

    >>> host_of("https://me:word@hooks.example:8443/T0/B0/xyz")
    'hooks.example:8443'
    """
    return urlsplit(url).netloc.rpartition("@")[2]


def is_host(text: str) -> bool:
    """Whether `text` may name a machine: a host name or an address.

    >>> is_host("winnow.lan"), is_host("10.0.0.7"), is_host("::1"), is_host("https://winnow.lan")
    (True, True, True, False)
    """
    return _is_address(text) or re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*", text) is not None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
