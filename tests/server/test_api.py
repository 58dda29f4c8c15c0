"""Does the API do what its description says, whatever it is asked?

schemathesis asks the real application, over a real store, what the description allows and what it does not: nothing may
fail inside, answer in another form than is described, or take what it says it refuses. `make fuzz` asks for longer.
"""

from __future__ import annotations

import contextlib

import pytest
import schemathesis
from api_scene import SAMPLES, Scene
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from server.store import trail
from server.store.users import ROLES
from server.web.openapi import TAGS

EXAMPLES = 4  # of each operation and mode; `make fuzz` takes the profile's


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    made = Scene(tmp_path_factory.mktemp("api"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def described(scene):
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", scene.app)

    @schema.hook
    def map_path_parameters(context, path_parameters):
        """Half of them of something that is there: what is drawn from the air is never found."""
        for key, value in (path_parameters or {}).items():
            if len(str(value)) % 2 and (known := scene.known(key, context.operation.path)) is not None:
                path_parameters[key] = known
        return path_parameters

    return schema


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("tag", TAGS)
def test_what_is_described_is_what_is_answered(described, tag, mode):
    drawn = settings.get_current_profile() == "exploring"
    for found in described.include(tag=tag).get_all_operations():
        operation = found.ok()

        @settings(max_examples=100 if drawn else EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case):
            case.call_and_validate(headers={"Authorization": "Bearer secret of admin"})

        ask()
