"""What do device and server say to each other, byte for byte?

Topics (MQTT 3.1.1 is the floor, nothing depends on more):

    winnow/1/<fleet>/<device>/up/{birth,death,sample,heartbeat,event,fetch}
    winnow/1/<fleet>/<device>/down/{desired,receipt,block}
    winnow/1/<fleet>/server/state

`sample` and `block` are frames: two bytes of header length (big endian), a msgpack header, a raw body.
Everything else is JSON, readable with mosquitto_sub. Unknown fields are ignored (a newer peer may add some);
anything else unexpected is a MessageError. Released formats decode for ever: see tests/golden.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

# All of it is found here; where each part stands: topics, reports (up), desired (down), frame, sample, limits.
from edge_agent.contract.desired import Assignment as Assignment
from edge_agent.contract.desired import BlockHeader as BlockHeader
from edge_agent.contract.desired import Desired as Desired
from edge_agent.contract.desired import Parcel as Parcel
from edge_agent.contract.desired import Pause as Pause
from edge_agent.contract.desired import Purge as Purge
from edge_agent.contract.desired import Receipt as Receipt
from edge_agent.contract.desired import Request as Request
from edge_agent.contract.desired import ServerState as ServerState
from edge_agent.contract.errors import MessageError
from edge_agent.contract.frame import H as H
from edge_agent.contract.frame import decode_frame as decode_frame
from edge_agent.contract.frame import encode_frame as encode_frame
from edge_agent.contract.limits import BLOCK_BYTES as BLOCK_BYTES
from edge_agent.contract.limits import BODY_MAX_BYTES as BODY_MAX_BYTES
from edge_agent.contract.limits import DTYPES as DTYPES
from edge_agent.contract.limits import FETCH_MAX_BLOCKS as FETCH_MAX_BLOCKS
from edge_agent.contract.limits import FRAME_MAX_BYTES as FRAME_MAX_BYTES
from edge_agent.contract.limits import HEADER_MAX_BYTES as HEADER_MAX_BYTES
from edge_agent.contract.limits import JSON_MAX_BYTES as JSON_MAX_BYTES
from edge_agent.contract.limits import PARCELS_MAX as PARCELS_MAX
from edge_agent.contract.limits import PARKED_SHOWN as PARKED_SHOWN
from edge_agent.contract.limits import PART_MIN_BYTES as PART_MIN_BYTES
from edge_agent.contract.limits import PURGE_SAMPLES_MAX as PURGE_SAMPLES_MAX
from edge_agent.contract.limits import PURGES_MAX as PURGES_MAX
from edge_agent.contract.limits import REQUEST_MAX_SAMPLES as REQUEST_MAX_SAMPLES
from edge_agent.contract.limits import REQUESTS_MAX as REQUESTS_MAX
from edge_agent.contract.limits import SAMPLE_MAX_BYTES as SAMPLE_MAX_BYTES
from edge_agent.contract.limits import TRANSFORMS_MAX as TRANSFORMS_MAX
from edge_agent.contract.reports import Birth as Birth
from edge_agent.contract.reports import Budgets as Budgets
from edge_agent.contract.reports import Death as Death
from edge_agent.contract.reports import DriftState as DriftState
from edge_agent.contract.reports import Event as Event
from edge_agent.contract.reports import EventKind as EventKind
from edge_agent.contract.reports import Fetch as Fetch
from edge_agent.contract.reports import Heartbeat as Heartbeat
from edge_agent.contract.reports import Held as Held
from edge_agent.contract.reports import LinkState as LinkState
from edge_agent.contract.reports import ModelState as ModelState
from edge_agent.contract.reports import OutboxState as OutboxState
from edge_agent.contract.reports import PaceState as PaceState
from edge_agent.contract.reports import Purged as Purged
from edge_agent.contract.reports import RequestState as RequestState
from edge_agent.contract.reports import SampleHeader as SampleHeader
from edge_agent.contract.reports import Slot as Slot
from edge_agent.contract.reports import SourceState as SourceState
from edge_agent.contract.reports import StreamCounts as StreamCounts
from edge_agent.contract.reports import Transform as Transform
from edge_agent.contract.sample import check_sample_header as check_sample_header
from edge_agent.contract.sample import check_whole as check_whole
from edge_agent.contract.sample import decode_body as decode_body
from edge_agent.contract.sample import decoded_bytes as decoded_bytes
from edge_agent.contract.sample import encode_sample as encode_sample
from edge_agent.contract.sample import part_size as part_size
from edge_agent.contract.sample import sample_frames as sample_frames
from edge_agent.contract.topics import DOWN as DOWN
from edge_agent.contract.topics import ROOT as ROOT
from edge_agent.contract.topics import UP as UP
from edge_agent.contract.topics import Address as Address
from edge_agent.contract.topics import Down as Down
from edge_agent.contract.topics import Up as Up
from edge_agent.contract.topics import down_topic as down_topic
from edge_agent.contract.topics import parse_topic as parse_topic
from edge_agent.contract.topics import probe_topic as probe_topic
from edge_agent.contract.topics import server_state_topic as server_state_topic
from edge_agent.contract.topics import up_filter as up_filter
from edge_agent.contract.topics import up_topic as up_topic

JsonMessage = Birth | Death | Heartbeat | Event | Fetch | Desired | Receipt | ServerState
J = TypeVar("J", Birth, Death, Heartbeat, Event, Fetch, Desired, Receipt, ServerState)

_json_encoder = msgspec.json.Encoder()


def encode(message: JsonMessage) -> bytes:
    """Any message but the frames, as JSON."""
    return _json_encoder.encode(message)


def decode(kind: type[J], payload: bytes) -> J:
    """Read a JSON message. MessageError, and nothing else, when it is not one."""
    if len(payload) > JSON_MAX_BYTES:
        raise MessageError(f"{kind.__name__}: {len(payload)} bytes, at most {JSON_MAX_BYTES}")
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MessageError(f"{kind.__name__}: {error}") from error
