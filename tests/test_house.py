"""The laws of the house that import-linter cannot see."""

import ast
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "medseg3d").rglob("*.py"))

HEAVY = {
    "SimpleITK", "jinja2", "lightning_fabric", "matplotlib", "monai", "nibabel", "numpy",
    "pydantic", "scipy", "torch",
}  # fmt: skip
NOT_NOUNS = {"base", "common", "core", "helper", "helpers", "manager", "misc", "util", "utils"}
SLEEPING_THREADS = "os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')"
LAUNCHER = ROOT / "medseg3d" / "train" / "launcher.py"
UNSAFE = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}

CHANGES_NOTHING = """
import logging, os, pkgutil, random, sys, warnings
from importlib import import_module
from importlib.util import find_spec
import numpy, torch, medseg3d

found = [module.name for module in pkgutil.walk_packages(medseg3d.__path__, "medseg3d.")]
found.remove("medseg3d.__main__")
if not find_spec("triton"):
    found.remove("medseg3d.predict.fused")

def state():
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    return {
        "logging": [(x.name, x.level, str(x.handlers)) for x in loggers if hasattr(x, "handlers")],
        "warnings": [*warnings.filters],
        "environment": dict(os.environ),
        "random": random.getstate(),
        "numpy.random": str(numpy.random.get_state()),
        "torch.random": torch.random.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
    }

def import_all():
    for name in [*sys.modules]:
        if name.partition(".")[0] == "medseg3d":
            del sys.modules[name]
    for name in found:
        import_module(name)

import_all()  # whatever libraries change has happened by now
warnings.resetwarnings()
torch.set_num_threads(3)
before = state()
import_all()
print([what for what, value in state().items() if value != before[what]])
print(len(found))
"""


def python(*arguments: str) -> str:
    """Run Python on the package as it lies here; give what it prints."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_room_is_looked_into():
    rooms = {path.relative_to(ROOT).parts[1] for path in MODULES}
    assert {"config", "data", "evaluate", "io", "nets", "predict", "preprocess", "train"} <= rooms
    assert len(MODULES) >= 60


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
class TestEveryModule:
    @pytest.fixture
    def tree(self, path: Path) -> ast.Module:
        return ast.parse(path.read_text(encoding="utf-8"))

    def test_it_is_a_page_that_says_what_it_is(self, path: Path, tree: ast.Module):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
        assert ast.get_docstring(tree), "a module has a docstring: what lives here"

    def test_it_is_called_after_what_is_in_it(self, path: Path):
        assert not NOT_NOUNS & {*path.stem.split("_"), *path.relative_to(ROOT).parts}

    def test_its_functions_are_short_and_take_few_parameters(self, tree: ast.Module):
        for function in functions(tree):
            lines = (function.end_lineno or 0) - function.lineno + 1
            assert lines <= 60, f"{function.name} has {lines} lines"
            named = function.args
            parameters = [*named.posonlyargs, *named.args, *named.kwonlyargs]
            count = sum(parameter.arg not in ("self", "cls") for parameter in parameters)
            assert count <= 8, f"{function.name} has {count} parameters"

    def test_no_function_passes_keywords_through(self, tree: ast.Module):
        for function in functions(tree):
            calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
            unpacked = {ast.unparse(k.value) for c in calls for k in c.keywords if k.arg is None}
            assert function.args.kwarg is None or function.args.kwarg.arg not in unpacked

    def test_nothing_is_read_from_the_environment(self, path: Path, tree: ast.Module):
        if path == LAUNCHER:
            pytest.skip("launchers tell processes who they are by variables of their own")
        # the command line lets OpenMP's waiting threads sleep; docs/concepts/architecture.md
        own = ast.parse(ast.unparse(tree).replace(SLEEPING_THREADS, "pass"))
        used = {node.attr for node in ast.walk(own) if isinstance(node, ast.Attribute)}
        used |= {name.rpartition(".")[2] for name in imported(tree)}
        assert not {"environ", "environb", "getenv", "putenv"} & used

    def test_nothing_is_pickled(self, tree: ast.Module):
        assert not UNSAFE & {name.partition(".")[0] for name in imported(tree)}
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False"
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("torch.load", "torch.save")

    def test_only_the_console_prints(self, path: Path, tree: ast.Module):
        prints = [
            node.lineno
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
        ]
        assert not prints or path.name == "console.py"


@pytest.mark.parametrize(
    ("module", "stays_out"),
    [
        ("medseg3d", HEAVY),
        ("medseg3d.cli", HEAVY),
        ("medseg3d.config.load", HEAVY - {"numpy", "pydantic"}),
        ("medseg3d.data.check", {"torch", "monai", "lightning_fabric", "matplotlib"}),
        ("medseg3d.evaluate.score", {"torch", "monai", "lightning_fabric", "matplotlib"}),
        ("medseg3d.preprocess.dataset", {"torch", "monai", "lightning_fabric", "matplotlib"}),
        ("medseg3d.report.page", {"torch", "monai", "lightning_fabric"}),
        ("medseg3d.predict.case", {"monai", "lightning_fabric", "matplotlib"}),
    ],
)
def test_importing_a_room_brings_in_no_more_than_it_needs(module: str, stays_out: set[str]):
    brought = python("-c", f"import sys, {module}; print(*sys.modules)").split()
    assert module in brought
    assert not stays_out & {name.partition(".")[0] for name in brought}


@pytest.mark.slow
def test_importing_changes_nothing():
    changed, number = python("-c", CHANGES_NOTHING).splitlines()
    assert changed == "[]"
    assert int(number) >= 60


def test_help_is_there_at_once():
    def cpu_seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    spent = []
    for _ in range(3):
        before = cpu_seconds()
        assert "Train, predict, evaluate" in python("-m", "medseg3d", "--help")
        spent.append(cpu_seconds() - before)
    assert min(spent) <= 0.4
