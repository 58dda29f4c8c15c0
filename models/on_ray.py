"""How do workers of Ray Train learn a net?

    python -m models.on_ray FOLDER --processes N --rendezvous ADDRESS

The same ranks, started by Ray where its cluster has room; without an address on this machine, by a Ray of its own that
ends with the training. The folder has to be one that every machine of the cluster sees, as Ray's own storage has. Needs
`winnow-edge[ray]`.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_agent.contract.errors import WinnowError
from models.launch import REFUSED
from models.orphan import die_with_parent

DRIVER_CPUS = 1  # a cluster of its own has as many as there are workers, and this for Ray itself


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the workers to their end; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.on_ray")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=0, help="workers; 0: one for each GPU of the cluster, or one")
    parser.add_argument("--nodes", type=int, default=1, help="Ray knows its own")
    parser.add_argument("--rendezvous", default="", help="address of a cluster; empty: one of its own")
    parser.add_argument("--parent", type=int, default=0, help="id of the process that it ends with")
    options = parser.parse_args(arguments)
    die_with_parent(signal.SIGTERM, parent=options.parent)
    try:
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
    except ImportError as error:
        (options.folder / REFUSED).write_text(f"[teach] launch = 'ray': {error}: pip install 'winnow-edge[ray]'")
        return 1
    own = {"num_cpus": max(1, options.processes) + DRIVER_CPUS, "include_dashboard": False}
    ray.init(**({"address": options.rendezvous} if options.rendezvous else own))
    gpus = int(ray.cluster_resources().get("GPU", 0))
    with tempfile.TemporaryDirectory(prefix="winnow-ray-") as storage:
        trainer = TorchTrainer(
            _work,
            train_loop_config={"folder": str(options.folder.resolve())},
            scaling_config=ScalingConfig(num_workers=options.processes or max(1, gpus), use_gpu=gpus > 0),
            run_config=RunConfig(storage_path=storage, failure_config=FailureConfig(max_failures=0)),
        )
        trainer.fit()
    return 0


def _work(told: dict[str, Any]) -> None:
    """What each worker does; Ray has set up the process group, and says its rank in the environment."""
    from models.rank import take_part
    from models.ranks import group

    folder = Path(told["folder"])
    try:
        with group() as ranks:
            take_part(folder, ranks, shared=True)
    except WinnowError as error:
        (folder / REFUSED).write_text(str(error))
        raise


if __name__ == "__main__":
    sys.exit(main())
