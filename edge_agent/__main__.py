"""winnow-agent: the program on the device."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.contract.errors import EXIT_CONFIG, ConfigError, WinnowError

if TYPE_CHECKING:
    import argparse

log = logging.getLogger("edge_agent")

EPILOG = """examples:
  winnow-agent enrol 'TOKEN'        become a member of a fleet, and get an agent.toml
  winnow-agent check agent.toml     read the configuration, try the model and the source, print what is in force
  winnow-agent run agent.toml       run until stopped
  winnow-agent status agent.toml    what the agent is doing, from its data folder
  winnow-agent verify FILE          is that model intact, and signed by the fleet?
"""
EXAMPLES = {
    "run": "Example: winnow-agent run agent.toml",
    "check": "Example: winnow-agent check agent.toml",
    "status": "Example: winnow-agent status --json agent.toml",
    "verify": "Example: winnow-agent verify model-7 --root root.json",
    "enrol": "Example: winnow-agent enrol 'winnow1.k7ZodHRw...' --dir /var/lib/winnow",
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    import argparse

    raw = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="winnow-agent",
        description="Runs a model on a stream and sends up only the samples worth a label.",
        epilog=EPILOG,
        formatter_class=raw,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", prog="winnow-agent")
    for name, about in (
        ("run", "run the agent until it is stopped (SIGTERM or Ctrl-C)"),
        ("check", "check the configuration, the model and the source; print what is in force"),
        ("status", "say what the agent is doing"),
    ):
        one = commands.add_parser(name, help=about, description=about, epilog=EXAMPLES[name], formatter_class=raw)
        one.add_argument("config", type=Path, metavar="agent.toml", help="the configuration file")
        if name == "status":
            one.add_argument("--json", action="store_true", help="as JSON, as the heartbeat says it")
            one.add_argument("--healthy", action="store_true", help="exit with 1 unless it runs and was heard lately")
    about = "say whether an artifact is intact and vouched for; needs no network"
    one = commands.add_parser("verify", help=about, description=about, epilog=EXAMPLES["verify"], formatter_class=raw)
    one.add_argument("file", type=Path, metavar="FILE", help="an artifact folder with its signatures, or its manifest")
    one.add_argument("--root", type=Path, required=True, metavar="root.json", help="the fleet's root of trust")
    about = "make a key, get a certificate for it with a token of the server, write agent.toml"
    one = commands.add_parser("enrol", help=about, description=about, epilog=EXAMPLES["enrol"], formatter_class=raw)
    one.add_argument("word", metavar="TOKEN", help="of `winnow-server device enrol`; - reads it from the input")
    one.add_argument("--dir", type=Path, default=Path(), metavar="FOLDER", help="where everything goes; default: .")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 when it went well, 78 for a configuration to mend, 1 for anything else."""
    words = sys.argv[1:] if argv is None else argv
    try:
        code = _command(words)
        sys.stdout.flush()
    except WinnowError as error:
        print(f"winnow-agent: {error}", file=sys.stderr)
        return EXIT_CONFIG if isinstance(error, ConfigError) else 1
    except BrokenPipeError:  # `| head`: whoever reads it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes
    return code


def _command(words: list[str]) -> int:
    if len(words) == 2 and words[0] == "run" and not words[1].startswith("-"):
        run(Path(words[1]))  # as a service does, without a parser: half a megabyte, and a twentieth of a start
        return 0
    arguments = parser().parse_args(words)
    if arguments.command == "run":
        run(arguments.config)
    elif arguments.command == "check":
        check(arguments.config)
    elif arguments.command == "verify":
        verify(arguments.file, arguments.root)
    elif arguments.command == "enrol":
        enrol(arguments.word, arguments.dir)
    else:
        return status(arguments.config, as_json=arguments.json, healthy=arguments.healthy)
    return 0


def run(path: Path) -> None:
    """Run the agent until SIGTERM or SIGINT."""
    from edge_agent import memory

    with memory.starting():
        _run(path, settled=memory.settle)


def _run(path: Path, *, settled: Callable[[], None]) -> None:
    from edge_agent.config import load_config
    from edge_agent.lock import only_one
    from edge_agent.systemd import read_environment

    faulthandler.enable(2)  # where it stood, when a watchdog or a library aborts it
    manager = read_environment()
    config = load_config(path, credentials=manager.credentials)
    logging.basicConfig(
        level=config.log.level.upper(), format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S"
    )
    from edge_agent.agent import Agent

    with only_one(Path(config.device.data_dir)):
        agent = Agent(config, manager=manager, settled=settled)
        for number in (signal.SIGTERM, signal.SIGINT):
            # In a thread: a handler interrupts the main thread, which may hold the lock of the very event it would set.
            signal.signal(number, lambda *_: threading.Thread(target=agent.stop).start())
        agent.run()


def check(path: Path) -> None:
    """Read the configuration, load the model, open the source, hold one against the other."""
    from edge_agent.check import check_parts
    from edge_agent.config import load_config
    from edge_agent.contract import settings
    from edge_agent.systemd import read_environment

    config = load_config(path, credentials=read_environment().credentials)
    for line in check_parts(config):
        print(f"# {line}")
    print(settings.show(config), end="")


def verify(file: Path, root: Path) -> None:
    """Hold an artifact against its hashes and signatures."""
    from edge_agent.contract.trust import verify_artifact

    print(f"{file}: {verify_artifact(file, root).describe(now_ms=time.time_ns() // 1_000_000)}")


def enrol(word: str, folder: Path) -> None:
    """Become a member of a fleet."""
    from edge_agent.contract.enrolment import parse_token
    from edge_agent.identity.enrol import enrol as enrol_in

    done = enrol_in(parse_token(sys.stdin.read() if word == "-" else word), folder)
    certificate = done.certificate
    until = time.strftime("%Y-%m-%d", time.gmtime(certificate.expires_s))
    print(f"device {certificate.device} is enrolled; its certificate is good until {until}, and renews itself")
    if done.written:
        print(f"{done.toml}: set [source], then: winnow-agent run {done.toml}")
    else:
        print(f"{done.toml} is left as it was; it needs:\n\n{done.uplink}")


def status(path: Path, *, as_json: bool, healthy: bool) -> int:
    """Print the last status.json, in words or as it is; 1 when it is to be `healthy` and is not."""
    from edge_agent.config import load_config
    from edge_agent.status import describe, read_status

    found = read_status(Path(load_config(path).device.data_dir))
    print(found.raw if as_json else describe(found))
    return int(healthy and not found.healthy)


if __name__ == "__main__":
    sys.exit(main())
