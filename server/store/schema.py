"""What does the server remember?

SQLAlchemy Core tables, the same for SQLite and PostgreSQL. Times are ms since 1970, UTC. Bytes live in blobs, by hash.
Labels, events and rollout steps are only ever added. Which class is in force follows from all labels of a sample
(consensus.py); of all else it is the latest.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

Whole = BigInteger().with_variant(Integer, "sqlite")  # 64 bits in both: SQLite's integers are all as wide
Id = Whole  # row ids, and what names one

device = Table(
    "device",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("first_seen_ms", BigInteger, nullable=False),
    Column("last_seen_ms", BigInteger, nullable=False),
    Column("online", Boolean, nullable=False, default=False),
    Column("session", String(64), nullable=False, default=""),
    Column("boot", BigInteger, nullable=False, default=0),
    Column("birth", JSON),  # the last Birth, as sent
    Column("heartbeat", JSON),  # the last Heartbeat, as sent
    Column("messages_bad", Whole, nullable=False, default=0),  # from it, undecodable
    Column(
        "throttled", BigInteger, nullable=False, server_default="0"
    ),  # from it, left for want of room: it sent too much
    Column("desired", JSON),  # the Desired in force, as published
    Column("desired_revision", Whole, nullable=False, default=0),
    Column("arm", String(140)),  # strategy/acquisition that the portfolio told it; null: its own
    Column("channel", String(63), nullable=False, server_default="stable"),  # whose rollouts concern it
    Column("ring", String(63)),  # where an operator put it; null: drawn anew for every version
    Column("site", String(63), nullable=False, server_default=""),  # where it is, as an operator said
    Column("said_ms", BigInteger, nullable=False, server_default="0"),  # when its word on what it runs came
    Column("lost_ms", BigInteger, nullable=False, server_default="0"),  # when the broker lost it, unless heard since
)

arrival = Table(  # a birth that nobody has answered yet (arrivals.py)
    "arrival",
    metadata,
    Column("device", String(63), primary_key=True),
    Column("session", String(64), primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
)

alarm = Table(  # what somebody should see to, as long as it stands (alarms.py)
    "alarm",
    metadata,
    Column("kind", String(20), primary_key=True),
    Column("subject", String(200), primary_key=True),
    Column("text", Text, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
)

delivery = Table(  # a message to a webhook (deliveries.py)
    "delivery",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("url", Text, nullable=False),  # of whom it is for
    Column("type", String(40), nullable=False),
    Column("body", Text, nullable=False),
    Column("made_at_ms", BigInteger, nullable=False),
    Column("state", String(10), nullable=False),  # waiting, delivered, dead
    Column("tries", Whole, nullable=False),
    Column("next_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger),
    Column("error", Text, nullable=False, server_default=""),  # of the last try
)
Index("delivery_by_state", delivery.c.state, delivery.c.url, delivery.c.id)

announcement = Table(  # what other programs were told of a device, retained by the broker (announcements.py)
    "announcement",
    metadata,
    Column("topic", String(300), primary_key=True),
    Column("sha256", String(64), nullable=False),  # of the payload
)

device_order = Table(  # what an operator told a device; the latest of each word is in force (device_orders.py)
    "device_order",
    metadata,
    Column("device", String(63), primary_key=True),
    Column("word", String(10), primary_key=True),  # pause, budget
    Column("said", JSON(none_as_null=True)),  # null: taken back
    Column("who", String(200), nullable=False),
    Column("why", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("revision", Whole, nullable=False),  # over all devices; only grows
)
Index("device_order_by_revision", device_order.c.revision)

token = Table(  # to enrol a device with, once
    "token",
    metadata,
    Column("secret_sha256", String(64), primary_key=True),
    Column("device", String(63), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("used_at_ms", BigInteger),
    Column("key_sha256", String(64)),  # of the public key that it let in
)

certificate = Table(  # every one that the fleet's CA gave to a device
    "certificate",
    metadata,
    Column("serial", String(40), primary_key=True),  # hex
    Column("n", Whole, nullable=False),  # of the device's: the highest is the one in force
    Column("device", String(63), nullable=False),
    Column("key_sha256", String(64), nullable=False),
    Column("issued_at_ms", BigInteger, nullable=False),
    Column("not_after_ms", BigInteger, nullable=False),
    Column("pem", LargeBinary, nullable=False),
    Column("revoked_at_ms", BigInteger),
)
Index("certificate_by_device", certificate.c.device, certificate.c.n, unique=True)

revocation = Table(  # who was shut out, and whether for ever
    "revocation",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("device", String(63), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("why", Text, nullable=False),
    Column("samples_left_out", Boolean, nullable=False),  # of all snapshots from then on
    Column("readmitted_at_ms", BigInteger),
)
Index("revocation_by_device", revocation.c.device, revocation.c.id)

sample = Table(
    "sample",
    metadata,
    Column("id", String(190), primary_key=True),  # device.stream.boot.seq, or import.<file>.0.<row>
    Column("device", String(63), nullable=False),
    Column("stream", String(63), nullable=False),
    Column("boot", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("ref", String(200), nullable=False, default=""),
    Column("origin", String(10), nullable=False),  # "device" or "import"
    Column("split", String(10), nullable=False),  # "train" or "holdout"; decided once, on arrival
    Column("captured_at_ms", BigInteger, nullable=False),
    Column("received_at_ms", BigInteger, nullable=False),
    Column("dtype", String(10), nullable=False),
    Column("shape", JSON, nullable=False),
    Column("encoding", String(10), nullable=False),
    Column("body_sha256", String(64), nullable=False),  # of the encoded body: its name among the blobs
    Column("body_bytes", Whole, nullable=False),
    Column("predicted", Whole),  # class index by the device's model; null for imports
    Column("confidence", Float),
    Column("model_version", Whole),
    Column("reason", String(20)),
    Column("probability", Float),  # of selection; null for imports
    Column("floor", Float),  # the part of it by which every sample alike is taken
    Column("utility", Float),
    Column("novelty", Float),
    Column("threshold", Float),
    Column("tokens", Float),
    Column("strategy", String(40)),
    Column("acquisition", String(100)),
    Column("shadow_probability", Float),  # of being taken because a shadow model disagreed; null: it was not
    Column("transforms", JSON(none_as_null=True)),  # for privacy, on the device, in their order; null: none
    Column("said", JSON(none_as_null=True)),  # contract/task.py Said: boxes, classes or values; null: of a classifier
)
Index("sample_by_device", sample.c.device, sample.c.boot, sample.c.seq)
# In the order in which people look through them (browse.py): the id tells those apart that came in one millisecond.
Index("sample_by_arrival", sample.c.received_at_ms, sample.c.id)
Index("sample_by_device_arrival", sample.c.device, sample.c.received_at_ms, sample.c.id)
Index("sample_by_predicted", sample.c.predicted, sample.c.received_at_ms, sample.c.id)
Index("sample_by_reason", sample.c.reason, sample.c.received_at_ms, sample.c.id)
Index("sample_by_version", sample.c.model_version, sample.c.received_at_ms, sample.c.id)

stretch = Table(  # of a stream: what was seen there, sent or not (stretches.py)
    "stretch",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("device", String(63), nullable=False),
    Column("stream", String(63), nullable=False),
    Column("boot", BigInteger, nullable=False),
    Column("session", String(64), nullable=False),
    Column("model_version", Whole, nullable=False),  # 0: of several
    Column("day", String(10), nullable=False),  # the server heard of it, UTC
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("read", BigInteger, nullable=False),
    Column("scored", BigInteger, nullable=False),
    Column("invalid", BigInteger, nullable=False),
    Column("selected", JSON, nullable=False),  # reason -> samples
    Column("sums", JSON, nullable=False),  # name -> vector, over every scored sample
    Column("counted", JSON, nullable=False),  # StreamCounts at its end, as said: where the next begins
)
Index("stretch_by_run", stretch.c.device, stretch.c.stream, stretch.c.boot, stretch.c.session, stretch.c.id)
Index("stretch_by_day", stretch.c.day)

span = Table(  # of time: what a device's stream looked like to a model (spans.py)
    "span",
    metadata,
    Column("device", String(63), primary_key=True),
    Column("model_version", Whole, primary_key=True, autoincrement=False),
    Column("start_ms", BigInteger, primary_key=True, autoincrement=False),  # the server heard of it from then on
    Column("signals", LargeBinary, nullable=False),  # as StreamCounts has them: samples, then sums; packed (vectors.py)
    Column("classes", LargeBinary, nullable=False),  # predicted, packed
)

beat = Table(  # of time: how a device was (beats.py)
    "beat",
    metadata,
    Column("device", String(63), primary_key=True),
    Column("start_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("step_ms", BigInteger, primary_key=True, autoincrement=False),  # how long
    Column("figures", LargeBinary, nullable=False),  # counts, sums, largest; packed (vectors.py)
)

reference = Table(  # what a model's signals are on held-out samples (references.py)
    "reference",
    metadata,
    Column("onnx_sha256", String(64), primary_key=True),
    Column("body_sha256", String(64), nullable=False),
    Column("samples", Whole, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

part = Table(  # of samples larger than one message, until all are here
    "part",
    metadata,
    Column("sample_id", String(190), primary_key=True),
    Column("body_sha256", String(64), primary_key=True),  # of the whole: parts of different bodies never mix
    Column("part", Whole, primary_key=True, autoincrement=False),
    Column("parts", Whole, nullable=False),
    Column("received_at_ms", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

quarantine = Table(  # what devices sent that is not of the wire format
    "quarantine",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("device", String(63), nullable=False),  # empty when not even the topic was readable
    Column("topic", String(200), nullable=False),
    Column("received_at_ms", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),  # its first 4 KB
    Column("payload_bytes", Whole, nullable=False),
)

portfolio = Table(  # of arms, see teach/portfolio.py; one row to a channel
    "portfolio",
    metadata,
    Column("channel", String(63), primary_key=True),
    Column("state", JSON, nullable=False),
    Column("shares", JSON, nullable=False),  # arm -> part of the fleet, as the state has it; empty: off
    Column("run_id", Id, nullable=False),  # the last that it learned from, 0: none
    Column("at_ms", BigInteger, nullable=False),
)

event = Table(
    "event",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("device", String(63), nullable=False),  # empty: the server itself
    Column("boot", BigInteger, nullable=False),
    Column("n", Whole, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("received_at_ms", BigInteger, nullable=False),
    Column("kind", String(20), nullable=False),
    Column("text", Text, nullable=False),
    Column("model_version", Whole, nullable=False, default=0),
    Column("detail", JSON, nullable=False),
)
Index("event_by_device", event.c.device, event.c.id)
Index("event_by_origin", event.c.device, event.c.boot, event.c.n)

gap = Table(  # samples that went with a device's outbox (gaps.py)
    "gap",
    metadata,
    Column("device", String(63), primary_key=True),
    Column("until_boot", BigInteger, primary_key=True),  # in which its next outbox began
    Column("since_boot", BigInteger, nullable=False),  # in which the lost one began
    Column("put_total", BigInteger, nullable=False),  # as it was last heard
    Column("evicted", BigInteger, nullable=False),
    Column("noticed_at_ms", BigInteger, nullable=False),
)

class_name = Table(  # the label schema: class index -> name; only grows
    "class_name",
    metadata,
    Column("index", Whole, primary_key=True, autoincrement=False),
    Column("name", String(200), nullable=False, unique=True),
)

label = Table(  # answers; which class is in force for a sample, `consensus` says
    "label",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("sample_id", String(190), ForeignKey("sample.id"), nullable=False),
    Column("class_index", Whole, nullable=False),  # or CANNOT_TELL, NONE_OF_THESE, VALUED
    Column("labeler", String(100), nullable=False),  # a person's name, or a program's or model's with its version
    Column("at_ms", BigInteger, nullable=False),
    Column("seconds", Float, nullable=False, default=0.0),  # a person's time
    Column("probability", Float),  # of being asked about, once here: 1 / weight; null where not left to chance
    Column("plan_ms", BigInteger),  # when it was drawn out of what waited; null where not left to chance
    Column("stands_for", Whole, nullable=False, default=1),  # itself, and what was spared beside it
    Column("kind", String(100), nullable=False, server_default=""),  # of labeler: human, teacher, oracle, a plug-in ...
    Column("price", Float, nullable=False, server_default="0"),  # in the currency of the configuration, as of then
    Column("purpose", String(20), nullable=False, server_default="first"),  # first, again, second look, gold
    Column("guess", Whole),  # class that a model gave it beforehand; null: none
    Column("guess_by", String(100), nullable=False, server_default=""),  # that model: "version 7"
    Column("shown", Boolean, nullable=False, server_default="0"),  # the guess, before the answer
    Column("key", String(200)),  # whoever sends an answer again sends it with the same key: it counts once
    Column("undone_at_ms", BigInteger),  # taken back by its labeler: counts no more
    Column("truth", JSON(none_as_null=True)),  # contract/task.py Truth, where class_index is VALUED; else null
)
Index("label_by_sample", label.c.sample_id, label.c.id)
Index("label_by_labeler", label.c.labeler, label.c.sample_id, label.c.id)
Index("label_by_kind", label.c.kind, label.c.at_ms)
Index("label_by_key", label.c.key, unique=True)

consensus = Table(  # the class in force of every answered sample: what its labels come to, never edited by itself
    "consensus",
    metadata,
    Column("sample_id", String(190), ForeignKey("sample.id", ondelete="CASCADE"), primary_key=True),
    Column("class_index", Whole, nullable=False),  # or CANNOT_TELL, NONE_OF_THESE, VALUED
    Column("confidence", Float),  # probability of that class by what is known of the labelers; null: nothing is
    Column("labelers", Whole, nullable=False),  # whose answers count
    Column("labeler", String(100), nullable=False),  # the last of them who said so
    Column("label_id", Id, nullable=False),  # the newest that counts
    Column("probability", Float),  # of being asked about, as the newest label that was drawn has it
    Column("plan_ms", BigInteger),
    Column("stands_for", Whole, nullable=False),
    Column("truth", JSON(none_as_null=True)),  # what the answers come to, where class_index is VALUED; else null
)
Index("consensus_by_label", consensus.c.label_id)
Index("consensus_by_labelers", consensus.c.labelers, consensus.c.label_id)
Index("consensus_by_class", consensus.c.class_index, consensus.c.label_id)
Index("consensus_by_labeler", consensus.c.labeler, consensus.c.label_id)

question = Table(  # what labelers are to be asked: the queue
    "question",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("sample_id", String(190), ForeignKey("sample.id", ondelete="CASCADE"), nullable=False),
    Column("purpose", String(20), nullable=False),  # first, again, second look
    Column("wanted", Whole, nullable=False),  # labelers
    Column("turn", Whole, nullable=False),  # the lowest first: 0, somebody asked for it; 1, a plan did
    Column("at_ms", BigInteger, nullable=False),
    Column("probability", Float),  # probability, plan_ms: as of the label that it leads to
    Column("plan_ms", BigInteger),
    Column("beside", JSON, nullable=False),  # ids of what shows the same, and is spared once it is answered
)
Index("question_by_sample", question.c.sample_id, unique=True)
Index("question_by_turn", question.c.turn, question.c.id)

lease = Table(  # who is being asked about what: nobody else is, until it runs out
    "lease",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("sample_id", String(190), ForeignKey("sample.id", ondelete="CASCADE"), nullable=False),
    Column("labeler", String(100), nullable=False),
    Column("purpose", String(20), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
    Column("guess", Whole),
    Column("guess_by", String(100), nullable=False),
    Column("confidence", Float),  # of the guess
    Column("shown", Boolean, nullable=False),
    Column("skipped", Boolean, nullable=False),  # by its labeler, who is not asked again until then; others are
)
Index("lease_by_sample", lease.c.sample_id, lease.c.labeler, unique=True)
Index("lease_by_labeler", lease.c.labeler, lease.c.until_ms)

gold = Table(  # samples whose class is known for sure: labelers are measured by them
    "gold",
    metadata,
    Column("sample_id", String(190), ForeignKey("sample.id", ondelete="CASCADE"), primary_key=True),
    Column("class_index", Whole, nullable=False),  # or NONE_OF_THESE, VALUED
    Column("labeler", String(100), nullable=False),  # who says so
    Column("at_ms", BigInteger, nullable=False),
    Column("truth", JSON(none_as_null=True)),  # where class_index is VALUED; else null
)

skill = Table(  # error rates of labelers, as last estimated (agreement.py)
    "skill",
    metadata,
    Column("labeler", String(100), primary_key=True),
    Column("counts", JSON, nullable=False),  # [[true class, said class, samples], ...]
    Column("label_id", Id, nullable=False),  # the newest label that was known then
)

embedding = Table(  # what a model makes of a sample, so that the server can choose; of the newest that ran on it
    "embedding",
    metadata,
    Column("sample_id", String(190), ForeignKey("sample.id", ondelete="CASCADE"), primary_key=True),
    Column("version", Whole, nullable=False),
    Column("vector", LargeBinary),  # (D,) float16; null: the model cannot be run on it
    Column("logits", LargeBinary),  # (C,) float16, over the temperature
)
Index("embedding_by_version", embedding.c.version)

place = Table(  # where a sample lies on the map of embeddings (places.py); a row goes with its sample
    "place",
    metadata,
    Column("sample_id", String(190), ForeignKey("sample.id", ondelete="CASCADE"), primary_key=True),
    Column("version", Whole, nullable=False),  # whose embeddings these are
    Column("x", Float, nullable=False),  # 0..1
    Column("y", Float, nullable=False),
)

duplicate = Table(  # it shows what another shows that is labelled, and waits for no label of its own
    "duplicate",
    metadata,
    Column("sample_id", String(190), ForeignKey("sample.id", ondelete="CASCADE"), primary_key=True),
    Column("stands_with", String(190), ForeignKey("sample.id", ondelete="CASCADE"), nullable=False),
)
Index("duplicate_by_representative", duplicate.c.stands_with)

fingerprint = Table(  # what a sample looks like, without a model (teach/fingerprint.py)
    "fingerprint",
    metadata,
    Column("sample_id", String(190), ForeignKey("sample.id", ondelete="CASCADE"), primary_key=True),
    Column("kind", String(10), nullable=False),
    Column("vector", LargeBinary, nullable=False),  # (64,) float32
    Column("bits", LargeBinary, nullable=False),  # 8 bytes
)

data_rule = Table(  # what may be done with whose samples; only added to, the latest of a scope is in force (rules.py)
    "data_rule",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("device", String(63), nullable=False),  # "*": any
    Column("stream", String(63), nullable=False),  # "*": any
    Column("purpose", Text, nullable=False),
    Column("licence", String(200), nullable=False),  # SPDX expression; empty: not known
    Column("consent", String(20), nullable=False),
    Column("region", String(100), nullable=False),
    Column("retention", String(63), nullable=False),  # name of the class
    Column("retention_days", Whole, nullable=False),  # 0: for ever
    Column("uses", JSON, nullable=False),
    Column("ended", Boolean, nullable=False),  # from here on the wider rule is in force
    Column("at_ms", BigInteger, nullable=False),
)
Index("data_rule_by_scope", data_rule.c.device, data_rule.c.stream, data_rule.c.id)

snapshot = Table(
    "snapshot",
    metadata,
    Column("id", String(64), primary_key=True),  # sha256 over all that it holds
    Column("created_at_ms", BigInteger, nullable=False),
    Column("classes", JSON, nullable=False),  # names, in index order
    Column("train_count", Whole, nullable=False),
    Column("holdout_count", Whole, nullable=False),
    Column("device_label_count", Whole, nullable=False),  # labels that came from devices
    Column("format", Whole, nullable=False, server_default="1"),  # of what the id is made of
    Column("rules", JSON, nullable=False, server_default="[]"),  # the data rules that were in force
)

snapshot_member = Table(
    "snapshot_member",
    metadata,
    Column("snapshot_id", String(64), ForeignKey("snapshot.id"), primary_key=True),
    Column("sample_id", String(190), ForeignKey("sample.id"), primary_key=True),
    Column("class_index", Whole, nullable=False),
    Column("split", String(10), nullable=False),
    Column("probability", Float),  # of having come into this split; null for imports
    Column("labeler", String(100), nullable=False, server_default=""),  # whose answer it is
    Column("rule", Whole),  # index into the snapshot's rules; null: from before there were any
    Column("truth", JSON(none_as_null=True)),  # contract/task.py Truth, where class_index is VALUED; else null
)

snapshot_left_out = Table(  # labelled, and yet no member
    "snapshot_left_out",
    metadata,
    Column("snapshot_id", String(64), ForeignKey("snapshot.id"), primary_key=True),
    Column("sample_id", String(190), ForeignKey("sample.id", ondelete="CASCADE"), primary_key=True),
    Column("why", String(20), nullable=False),
    Column("beside", String(190), nullable=False),  # the held-out sample that it is like, or near to
)
Index("snapshot_left_out_by_sample", snapshot_left_out.c.sample_id)
Index("snapshot_member_by_sample", snapshot_member.c.sample_id, snapshot_member.c.snapshot_id)

run = Table(
    "run",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("snapshot_id", String(64), ForeignKey("snapshot.id"), nullable=False),
    Column("champion", Whole, nullable=False),  # version it started from, 0: none
    Column("recipe", String(100), nullable=False),
    Column("state", String(20), nullable=False),  # training, judging, published, rejected, failed
    Column("started_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger),
    Column("report", JSON),  # losses, verdict, figures
    Column("error", Text),
)

curve = Table(  # how a training went, epoch by epoch (curves.py); null: not known
    "curve",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("run_id", Id, ForeignKey("run.id"), nullable=False),
    Column("epoch", Whole, nullable=False),
    Column("loss", Float),
    Column("held_loss", Float),
    Column("held_accuracy", Float),  # 0..1
    Column("learning_rate", Float),
    Column("seconds", Float, nullable=False),  # since the training began
)
Index("curve_by_run", curve.c.run_id, curve.c.epoch)

version = Table(
    "version",
    metadata,
    Column("number", Whole, primary_key=True, autoincrement=False),  # only grows
    Column("name", String(100), nullable=False),
    Column("parent", Whole, nullable=False),
    Column("snapshot_id", String(64), nullable=False, default=""),
    Column("run_id", Id),
    Column("manifest_sha256", String(64), nullable=False),
    Column("manifest_bytes", Whole, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("weights_sha256", String(64), nullable=False, default=""),  # torch checkpoint, to train on from
    Column("metrics", JSON, nullable=False),
)

parcel = Table(  # a smaller form of a model file, as a blob
    "parcel",
    metadata,
    Column("file_sha256", String(64), primary_key=True),
    Column("packing", String(20), primary_key=True),
    Column("base_sha256", String(64), primary_key=True),  # the file needed to unpack it; empty: none
    Column("sha256", String(64), nullable=False),
    Column("bytes", Whole, nullable=False),
)

rollout = Table(
    "rollout",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("version", Whole, ForeignKey("version.number"), nullable=False),
    Column("previous", Whole, nullable=False),
    Column("plan", JSON, nullable=False),  # rings with their rules
    Column("state", JSON, nullable=False),  # as release/rollout.py defines it
    Column("brief", JSON, nullable=False, server_default="{}"),  # what lists show of the state (rollouts.py)
    Column("status", String(20), nullable=False),  # running, done, halted, superseded
    Column("started_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger),
    Column("channel", String(63), nullable=False, server_default="stable"),
)

rollout_step = Table(  # why it is where it is
    "rollout_step",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("rollout_id", Id, ForeignKey("rollout.id"), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("text", Text, nullable=False),
    Column("kind", String(20), nullable=False, server_default=""),  # as release/rollout.py has them; empty: an old one
    Column("ring", String(63), nullable=False, server_default=""),
    Column("device", String(63), nullable=False, server_default=""),
)
Index("rollout_step_by_rollout", rollout_step.c.rollout_id, rollout_step.c.id)

rollout_command = Table(  # what operators said; the running server obeys
    "rollout_command",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("rollout_id", Id, ForeignKey("rollout.id"), nullable=False),
    Column("word", String(20), nullable=False),  # pause, resume, approve, halt, rollback
    Column("reason", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("answered_at_ms", BigInteger),  # null: the server has not seen it
    Column("answer", Text, nullable=False, server_default=""),
)

request = Table(  # "more like this", to devices
    "request",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("sample_id", String(190), ForeignKey("sample.id"), nullable=False),
    Column("devices", JSON(none_as_null=True)),  # names; null: all, those to come included
    Column("similar", Float, nullable=False),  # least cosine
    Column("count", Whole, nullable=False),  # samples at most, of each device
    Column("created_at_ms", BigInteger, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
    Column("cancelled_at_ms", BigInteger),
)

trail = Table(  # who did what and why, each chained to the one before (trail.py)
    "trail",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("who", String(200), nullable=False),
    Column("what", String(40), nullable=False),
    Column("subject", String(300), nullable=False),
    Column("why", Text, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("previous_sha256", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),
)
Index("trail_by_subject", trail.c.subject, trail.c.id)

erasure = Table(  # what was forgotten at somebody's word, without what it was (erasures.py)
    "erasure",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", String(10), nullable=False),  # device, sample, labeler
    Column("subject", String(100), nullable=False),  # a device's name; else a keyed hash
    Column("who", String(200), nullable=False),
    Column("why", Text, nullable=False),
    Column("counts", JSON, nullable=False),  # what went: table -> rows
    Column("boots", JSON, nullable=False),  # device -> boot -> samples that were stored
    Column("sha256", String(64), nullable=False),  # over the tombstones, in order
    Column("finished_at_ms", BigInteger),  # null: bytes of it may still be here
)

erasure_key = Table(  # so that a tombstone tells an id only to whoever has this; one row
    "erasure_key",
    metadata,
    Column("id", Whole, primary_key=True, autoincrement=False),
    Column("key", LargeBinary, nullable=False),
)

tombstone = Table(  # of a sample, or an answer, that is not to come back
    "tombstone",
    metadata,
    Column("sha256", String(64), primary_key=True),  # of its id, or its key; keyed
    Column("erasure_id", Id, ForeignKey("erasure.id"), nullable=False),
)

erased_member = Table(  # what stands for a member that a snapshot has lost
    "erased_member",
    metadata,
    Column("snapshot_id", String(64), ForeignKey("snapshot.id"), primary_key=True),
    Column("sha256", String(64), primary_key=True),  # of the member, keyed
    Column("split", String(10), nullable=False),
    Column("erasure_id", Id, ForeignKey("erasure.id"), nullable=False),
)

snapshot_seal = Table(  # over the hashes of all members as they were, made when the first was erased
    "snapshot_seal",
    metadata,
    Column("snapshot_id", String(64), ForeignKey("snapshot.id"), primary_key=True),
    Column("sha256", String(64), nullable=False),
)

erased_device = Table(  # up to where what a device kept is not to come back
    "erased_device",
    metadata,
    Column("device", String(63), primary_key=True),
    Column("erasure_id", Id, ForeignKey("erasure.id"), nullable=False),
    Column("boot", BigInteger),  # null: it has not said yet that it purged; nothing of it is taken
    Column("seq", BigInteger),
)

purge_order = Table(  # what a device is to delete, until it says that it has
    "purge_order",
    metadata,
    Column("erasure_id", Id, ForeignKey("erasure.id"), primary_key=True),
    Column("device", String(63), primary_key=True),
    Column("samples", JSON, nullable=False),  # ids; empty: all it has
)

doomed_blob = Table(  # named by a row that went; deleted when no other names it
    "doomed_blob",
    metadata,
    Column("sha256", String(64), primary_key=True),
)

removed = Table(  # samples of a run that were not kept for longer; how they counted stays (removed.py)
    "removed",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("device", String(63), nullable=False),
    Column("stream", String(63), nullable=False),
    Column("boot", BigInteger, nullable=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("samples", Integer, nullable=False),
    Column("reasons", JSON, nullable=False),  # of their selection -> samples
    Column("packed", LargeBinary, nullable=False),  # a few bytes of each
)
Index("removed_by_run", removed.c.device, removed.c.stream, removed.c.boot, removed.c.first_seq)

usage = Table(  # how much of the disk is used for what, day by day (usage.py)
    "usage",
    metadata,
    Column("day", String(10), primary_key=True),  # UTC
    Column("name", String(60), primary_key=True),
    Column("rows", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

card = Table(  # model and data card of a version, as they were when it was published (govern/card.py)
    "card",
    metadata,
    Column("version", Whole, ForeignKey("version.number"), primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("body_sha256", String(64), nullable=False),
)

training_order = Table(  # a round that somebody asked for (training_orders.py)
    "training_order",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("who", String(200), nullable=False),
    Column("why", Text, nullable=False),
    Column("run_id", Id),  # null: not begun
)

leadership = Table(  # seats that one process holds at a time (leadership.py)
    "leadership",
    metadata,
    Column("name", String(20), primary_key=True),
    Column("holder", String(200), nullable=False),  # empty: nobody
    Column("term", BigInteger, nullable=False),  # only grows: a write under an older one is refused
    Column("since_ms", BigInteger, nullable=False),
    Column("until_ms", BigInteger, nullable=False),  # by the catalogue's clock; 0: given back
)

user = Table(  # who may sign in (users.py)
    "user",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("role", String(20), nullable=False),
    Column("password_hash", String(200), nullable=False, server_default=""),  # empty: a proxy signs them in
    Column("created_at_ms", BigInteger, nullable=False),
    Column("disabled_at_ms", BigInteger),
)

web_session = Table(
    "web_session",
    metadata,
    Column("secret_sha256", String(64), primary_key=True),  # of the cookie
    Column("user", String(100), ForeignKey("user.name"), nullable=False),
    Column("csrf", String(64), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
)
Index("web_session_by_user", web_session.c.user)

csrf_key = Table(  # of people whom a proxy signs in, the same for every web server; one row
    "csrf_key",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("key", LargeBinary, nullable=False),
)

api_token = Table(  # for programs
    "api_token",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("secret_sha256", String(64), nullable=False, unique=True),
    Column("user", String(100), ForeignKey("user.name"), nullable=False),
    Column("name", String(100), nullable=False),  # what it is for
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("revoked_at_ms", BigInteger),
)

chore = Table(  # what somebody asked for that takes longer than a page may (chores.py)
    "chore",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("kind", String(10), nullable=False),  # export, map
    Column("order", JSON, nullable=False),  # of what kind exactly
    Column("who", String(200), nullable=False),
    Column("why", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("state", String(10), nullable=False),  # waiting, running, done, failed, gone
    Column("ended_at_ms", BigInteger),
    Column("result", JSON, nullable=False),  # what came of it
    Column("error", Text, nullable=False, server_default=""),
)
Index("chore_by_state", chore.c.state, chore.c.id)
