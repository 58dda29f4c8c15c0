"""Do imports point down, and do the files keep to the habits that ARCHITECTURE.md states?

Everything is read from the source by `ast`; only the last tests import something, in a process of their own.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import edge_agent

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("edge_agent", "server", "models")

# Of each package, from the top down: a part imports only parts of lower rows, or itself.
AGENT_PARTS = (
    {"__main__"},
    {"agent", "check", "testing"},
    {"housekeeping", "account", "standing", "stream", "session", "parts", "loader", "thermostat"},
    {"answers", "intake"},
    {"loop"},
    {"extras"},
    {"shadow"},
    {"block", "record", "outgoing", "scores", "lookout", "orders"},
    {"batch"},
    {"config"},  # has the options of sources
    {"source", "model", "choose", "send", "update", "identity", "status", "metrics", "systemd"},
    {"runtime"},
    {"mqtt", "memory", "lock", "history", "providers", "pulse", "pace", "heat", "listener", "latency"},
    {"contract"},
)
SERVER_PARTS = (
    {"__main__"},
    {"cli"},
    {"demo", "backtest", "simulate"},
    {"launch"},
    {"app", "apart", "testing"},
    {"roles"},
    {"web"},
    {"inventory"},
    {"status"},
    {"collect", "label", "teach", "release", "identity", "govern", "tell", "keep"},
    {"audit", "drift"},
    {"store", "child"},
    {"config"},
    {"errors"},
)
MAY_IMPORT = {  # package -> what it may import of the others; the longest name counts
    "edge_agent": (),
    "models": (  # what a device says of what a model gives
        "edge_agent.contract",
        "edge_agent.choose.acquisition",
        "edge_agent.choose.committee",
        "edge_agent.choose.tasks",
    ),
    "server": ("edge_agent.contract", "edge_agent.choose"),
    "server.demo": PACKAGES,  # a script over the whole product
    "server.simulate": (  # a light device waits, sends again and fetches by the agent's own rules
        "edge_agent.contract",
        "edge_agent.choose",
        "edge_agent.send.window",
        "edge_agent.update.fetch",
    ),
    "server.backtest": ("edge_agent.contract", "edge_agent.choose", "models"),  # loaded by its command alone
}
MAY_IMPORT_LAZILY = {  # torch is loaded where there is something to train, onnxruntime where something is to be run
    "server.teach": ("models",),
    "server.label": ("models.evaluate",),
    "server.release": ("models.evaluate",),
}
EXTRAS = (
    "torch",
    "onnx",
    "onnxscript",
    "sqlalchemy",
    "alembic",
    "fastapi",
    "typer",
    "rich",
    "matplotlib",
    "PIL",
    "cv2",
    "serial",
)
LOADED_NEVER = ("torch", "onnx", "sqlalchemy", "fastapi", "tuf")  # python-tuf by a child process
STARTED_WITHOUT = (  # megabytes, or milliseconds
    "argparse", "importlib.metadata", "numpy.random", "ssl", "paho", "http.client", "json", "edge_agent.shadow",
)  # fmt: skip
READ_ENVIRONMENT = {
    "models/data.py:default_cache",
    "models/ranks.py:group",  # how torchrun and Ray speak to a rank
    "edge_agent/systemd.py:read_environment",
}
FORGIVING = {  # where Exception may be caught: supervising loops, and around a user's plug-in
    "models/trainer.py:_asked",
    "edge_agent/agent.py:*",
    "edge_agent/answers.py:_work",  # of a thread: what it raises is raised in the caller's
    "edge_agent/contract/images.py:decode_image",  # parsers of other people's making
    "edge_agent/contract/settings.py:imported",  # the module of a plug-in
    "edge_agent/housekeeping.py:run",
    "edge_agent/scores.py:of",
    "edge_agent/send/uplink.py:_run",
    "edge_agent/stream.py:_guarded",
    "edge_agent/source/kinds.py:_plug_in",
    "edge_agent/source/live.py:_run",  # of a thread: what it raises is raised in the loop's
    "edge_agent/send/privacy.py:_run",
    "edge_agent/testing.py:_transformed",
    "edge_agent/testing.py:_utility",
    "edge_agent/send/writer.py:_run",
    "edge_agent/update/updater.py:_run",
    "server/roles/tick.py:look",
    "server/collect/collector.py:_take",
    "server/collect/collector.py:_call",
    "server/collect/prover.py:_prove",
    "server/label/labeler.py:make",
    "server/drift/watch.py:_work",
    "server/tell/alarms.py:_work",
    "server/release/downloads.py:_work",
    "server/label/labelling.py:_work",
    "server/label/teacher.py:owned",
    "server/label/labeler.py:ask",
    "server/web/chores.py:_work",
}
VAGUE = {"utils", "helpers", "common", "base", "manager", "handler", "util", "helper", "misc"}
FUNCTION_MAX_LINES = 60
ARCHITECTURE_MAX_LINES = 150


class Import(NamedTuple):
    """One imported module; `lazy` when it happens inside a function, or only for the type checker."""

    module: str
    line: int
    lazy: bool


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def part_of(module: str) -> str:
    """`edge_agent.send.outbox` -> `send`; the package itself -> "" (its __init__ is empty)."""
    return [*module.split("."), ""][1]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def walk(node: ast.AST, *, lazy: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below, and whether it runs later than the import of its module."""
    for child in ast.iter_child_nodes(node):
        later = (
            lazy or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or is_type_checking(child)
        )
        yield child, later
        yield from walk(child, lazy=later)


def imports_of(path: Path, tree: ast.Module) -> Iterator[Import]:
    for node, lazy in walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, lazy)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(path, node)
            for alias in node.names:
                inner = ROOT / base.replace(".", "/") / alias.name
                is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                yield Import(f"{base}.{alias.name}" if is_module else base, node.lineno, lazy)


def absolute(path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = path.relative_to(ROOT).parent.parts
    above = package[: len(package) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sources()}


def within(module: str, allowed: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in allowed)


def test_packages_import_only_what_they_may_of_each_other(trees: dict[Path, ast.Module]) -> None:
    wrong = [
        f"{name_of(path)}:{found.line} imports {found.module}"
        for path, tree in trees.items()
        for found in imports_of(path, tree)
        if found.module.split(".")[0] in {*PACKAGES} - {module_of(path).split(".")[0]}
        and not within(found.module, rule(MAY_IMPORT, module_of(path)))
        and not (found.lazy and within(found.module, rule(MAY_IMPORT_LAZILY, module_of(path))))
    ]
    assert not wrong, "\n".join(wrong)


def rule(rules: dict[str, tuple[str, ...]], module: str) -> tuple[str, ...]:
    """What the nearest package around a module says, nothing when none does."""
    names = module.split(".")
    around = (".".join(names[:n]) for n in range(len(names), 0, -1))
    return next((rules[name] for name in around if name in rules), ())


@pytest.mark.parametrize(("package", "parts"), [("edge_agent", AGENT_PARTS), ("server", SERVER_PARTS)])
def test_imports_point_down(trees: dict[Path, ast.Module], package: str, parts: tuple[set[str], ...]) -> None:
    row = {part: number for number, names in enumerate(parts) for part in names}
    wrong = []
    for path, tree in trees.items():
        module = module_of(path)
        if module.split(".")[0] != package or module == package:
            continue
        own = part_of(module)
        assert own in row, f"{name_of(path)}: give {own!r} a row in this test and a line in ARCHITECTURE.md"
        for found in imports_of(path, tree):
            other = part_of(found.module) if found.module.split(".")[0] == package else ""
            if other and other != own and row.get(other, -1) <= row[own]:
                wrong.append(f"{name_of(path)}:{found.line}: {own} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_the_agent_imports_nothing_of_the_extras_at_module_level(trees: dict[Path, ast.Module]) -> None:
    wrong = [
        f"{name_of(path)}:{found.line} imports {found.module}"
        for path, tree in trees.items()
        if module_of(path).startswith("edge_agent")
        for found in imports_of(path, tree)
        if not found.lazy and found.module.split(".")[0] in EXTRAS
    ]
    assert not wrong, "\n".join(wrong)


def test_the_environment_is_read_by_the_named_loaders_only(trees: dict[Path, ast.Module]) -> None:
    wrong = [
        f"{name_of(path)}:{getattr(node, 'lineno', 0)}: {function} reads the environment"
        for path, tree in trees.items()
        for node, function in with_function(tree)
        if reads_environment(node) and f"{name_of(path)}:{function}" not in READ_ENVIRONMENT
    ]
    assert not wrong, "\n".join(wrong)


def test_no_chance_on_a_device_is_numpys(trees: dict[Path, ast.Module]) -> None:
    wrong = [
        f"{name_of(path)}:{node.lineno}"
        for path, tree in trees.items()
        if name_of(path).startswith("edge_agent/") and name_of(path) != "edge_agent/testing.py"  # a user's, beside it
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(("np.random", "numpy.random"))
    ]
    assert not wrong, "\n".join(wrong)


def reads_environment(node: ast.AST) -> bool:
    """os.environ[...], os.environ.get, os.getenv; `{**os.environ, ...}` hands it on to a child and reads nothing."""
    if isinstance(node, ast.Subscript):
        return ast.unparse(node.value) == "os.environ" and isinstance(node.ctx, ast.Load)
    return isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.environ.get", "os.getenv", "getenv")


def test_nothing_happens_at_import(trees: dict[Path, ast.Module]) -> None:
    effects = ("basicConfig", "start", "Thread", "Popen", "run", "connect", "mkdir", "open", "read_text", "write_text")
    wrong = [
        f"{name_of(path)}:{node.lineno}: {ast.unparse(node)[:60]}"
        for path, tree in trees.items()
        for node, lazy in walk(tree)
        if isinstance(node, ast.Call) and not lazy and ast.unparse(node.func).split(".")[-1] in effects
    ]
    assert not wrong, "\n".join(wrong)


def test_handlers_name_what_they_expect(trees: dict[Path, ast.Module]) -> None:
    wrong = [
        f"{name_of(path)}:{node.lineno}: {function} catches {ast.unparse(node.type) if node.type else 'everything'}"
        for path, tree in trees.items()
        for node, function in with_function(tree)
        if isinstance(node, ast.ExceptHandler) and catches_everything(node)
        if not {f"{name_of(path)}:{function}", f"{name_of(path)}:*"} & FORGIVING
    ]
    assert not wrong, "\n".join(wrong)


def with_function(node: ast.AST, function: str = "") -> Iterator[tuple[ast.AST, str]]:
    """Every node below, with the name of the innermost function around it."""
    for child in ast.iter_child_nodes(node):
        yield child, function
        inner = child.name if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) else function
        yield from with_function(child, inner)


def catches_everything(handler: ast.ExceptHandler) -> bool:
    """Unless it raises again: cleaning up on the way out hides nothing."""
    names = {"Exception", "BaseException"}
    broad = handler.type is None or bool(names & {ast.unparse(node) for node in ast.walk(handler.type)})
    last = handler.body[-1]
    return broad and not (isinstance(last, ast.Raise) and last.exc is None)


def test_files_are_named_by_a_noun(trees: dict[Path, ast.Module]) -> None:
    assert not [name_of(path) for path in trees if VAGUE & set(path.relative_to(ROOT).with_suffix("").parts)]


def test_functions_fit_on_a_screen(trees: dict[Path, ast.Module]) -> None:
    wrong = [
        f"{name_of(path)}:{node.lineno}: {node.name} has {length} lines, at most {FUNCTION_MAX_LINES}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if "migrations" not in path.parts  # a frozen list of tables
        and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_MAX_LINES
    ]
    assert not wrong, "\n".join(wrong)


def test_every_module_says_what_it_is_for(trees: dict[Path, ast.Module]) -> None:
    assert not [name_of(path) for path, tree in trees.items() if tree.body and not ast.get_docstring(tree)]


def test_the_architecture_stays_short() -> None:
    page = ROOT / "ARCHITECTURE.md"
    assert not page.exists() or len(page.read_text(encoding="utf-8").splitlines()) <= ARCHITECTURE_MAX_LINES


def test_the_agent_loads_nothing_of_the_extras() -> None:
    code = (
        "import sys, edge_agent.__main__, edge_agent.agent\n"
        f"print(*[name for name in {LOADED_NEVER!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_the_agent_says_the_version_that_is_installed() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{edge_agent.__version__}"\n' in project


def test_what_a_start_does_without_is_not_loaded() -> None:
    code = (
        "import sys, edge_agent.__main__, edge_agent.agent\n"
        f"print(*[name for name in {STARTED_WITHOUT!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_importing_the_agent_prints_nothing_and_sets_up_no_logging() -> None:
    code = (
        "import logging, threading, edge_agent.__main__, edge_agent.agent\n"
        "print(logging.getLogger().handlers, threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[] 1", "")
