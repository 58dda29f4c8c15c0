"""How is onnxruntime asked, and what does it say when it refuses?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from edge_agent.contract.errors import IncompatibleError
from edge_agent.contract.graph import check_graph
from edge_agent.providers import KNOWN, PROCESSOR, TELL, Chain

ORT_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(kind for kind in vars(ort_state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
)  # they have no root of their own
SAID_CHARS = 220  # of onnxruntime's words: a reason for a refusal is kept with 300


def open_session(data: bytes, *, threads: int = 1, chain: Chain = PROCESSOR) -> ort.InferenceSession:
    """A session that does not spin (57 % of a core wasted at 50 Hz otherwise); IncompatibleError when it cannot be."""
    check_graph(data)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1 if chain.own_threads else threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if chain != PROCESSOR:
        options.add_session_config_entry(TELL, "1")
    with refusing(f"onnxruntime {ort.__version__} cannot load it"):
        # Its own fallback goes on with the processor, and prints that: nobody would know.
        session = ort.InferenceSession(data, options, providers=chain.for_onnxruntime(), enable_fallback=0)
    if KNOWN[chain.names[0]] not in session.get_providers():  # it leaves out what does not start, and logs why
        raise IncompatibleError(f"{chain.names[0]} does not start: its libraries, or what it runs on, are not there")
    return session


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn onnxruntime's errors into IncompatibleError; of their pages of text the first line says it, at its ends."""
    try:
        yield
    except ORT_ERRORS as error:
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        brief = line if len(line) <= SAID_CHARS else f"{line[: SAID_CHARS // 2]} ... {line[-SAID_CHARS // 2 :]}"
        raise IncompatibleError(f"{what}: {brief}") from error
