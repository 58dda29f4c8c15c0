from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def secure_broker(tmp_path_factory: pytest.TempPathFactory):
    """The server's broker child with TLS, a fleet CA and access rules; `secure_broker.ca` makes members."""
    from fleet_ca import SecureBroker  # here: the agent's tests run where the server is not installed

    folder: Path = tmp_path_factory.mktemp("secure")
    broker = SecureBroker(folder)
    broker.start()
    yield broker
    broker.stop()
