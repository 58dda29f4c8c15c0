"""How large may be what travels?"""

from __future__ import annotations

BODY_MAX_BYTES = 96 * 1024  # AWS IoT caps a message at 128 KB; header and topic need the rest
PART_MIN_BYTES = 1024  # smaller parts are mostly header
BLOCK_BYTES = 64 * 1024
HEADER_MAX_BYTES = 16 * 1024
FRAME_MAX_BYTES = 2 + HEADER_MAX_BYTES + BODY_MAX_BYTES
JSON_MAX_BYTES = 64 * 1024
SAMPLE_MAX_BYTES = 64 * 1024 * 1024  # of one decoded sample; a 4k RGB frame is 25 MB
FETCH_MAX_BLOCKS = 64  # of one request
PARCELS_MAX = 16  # of one assignment, for the same reason as REQUESTS_MAX
REQUESTS_MAX = 32  # open for one device: Desired must stay below JSON_MAX_BYTES
REQUEST_MAX_SAMPLES = 1000  # of one request, of each device
PURGES_MAX = 4  # of one order, for the same reason
PURGE_SAMPLES_MAX = 20  # that one of them names
REF_MAX_CHARS = 200  # these three are columns of the server's
STRATEGY_MAX_CHARS = 40
ACQUISITION_MAX_CHARS = 100
TRANSFORMS_MAX = 16  # of one sample
PARKED_SHOWN = 3  # refused samples that a heartbeat names
DTYPES = ("uint8", "int8", "int16", "uint16", "int32", "int64", "float16", "float32", "float64")
