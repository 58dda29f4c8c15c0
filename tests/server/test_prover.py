"""Is every image answered in the end, whatever happens to another?"""

import time

import numpy as np
from device_words import FLEET, sample

from edge_agent.contract import images
from edge_agent.contract.wire import encode_frame, encode_sample, up_topic
from server.collect import prover
from server.collect.backlog import Backlog
from server.collect.inbound import Message, Picture, Upload, hear
from server.collect.turns import Turns
from server.store.sandbox import Sandbox

WAIT_S = 20.0


def wait_for(condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "did not come about"
        time.sleep(0.005)


def picture() -> Picture:
    header, body = encode_sample(
        sample("cam-1", 1, data=np.zeros((64, 64, 3), np.uint8)), codec=images.Codec("png", 90)
    )
    found = hear(Message(up_topic(FLEET, "cam-1", "sample"), encode_frame(header, body), 0), fleet=FLEET)
    assert isinstance(found, Picture)
    return found


class Doubtful(Sandbox):
    """The first image is one that no rule foresaw."""

    asked = 0

    def decode(self, body, kind, shape):
        self.asked += 1
        if self.asked == 1:
            raise ZeroDivisionError
        return super().decode(body, kind, shape)


def test_an_image_that_no_rule_foresaw_does_not_end_the_proving_of_others(monkeypatch, caplog):
    monkeypatch.setattr(prover, "Sandbox", Doubtful)
    found: list[object] = []
    proving = prover.Prover(Backlog(Turns(room=1 << 20, device_share=1.0)), done=found.append)
    proving.start()
    proving.put(picture())
    wait_for(lambda: "could not be proven" in caplog.text)
    wait_for(lambda: proving.put(picture()) or found)  # it was not answered, so it comes again
    proving.stop()
    assert isinstance(found[0], Upload)


def test_an_image_that_is_proven_at_once_is_proven_again_when_its_answer_was_lost():
    found: list[object] = []

    class Slow(Backlog[Picture]):
        """Who brings an image comes back when it was proven."""

        def put_or_leave(self, device, item, size):
            before, taken = len(found), super().put_or_leave(device, item, size)
            wait_for(lambda: len(found) > before)
            return taken

    proving = prover.Prover(Slow(Turns(room=1 << 20, device_share=1.0)), done=found.append)
    proving.start()
    proving.put(picture())
    wait_for(lambda: proving.put(picture()) or len(found) == 2)
    proving.stop()
