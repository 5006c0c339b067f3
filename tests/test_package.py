"""The package as a whole: light to import, declared once, documented, committed without outputs."""

import ast
import contextlib
import importlib
import inspect
import io
import json
import re
import subprocess
import sys
import tokenize
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import yaml
from IPython.core.completer import IPCompleter, provisionalcompleter

import mut3r_analysis as m3
from mut3r_analysis.errors import MissingFile
from mut3r_analysis.foundation.bundled import data_path

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def modules_after(statement: str) -> set[str]:
    script = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_the_package_is_light():
    heavy = {"torch", "matplotlib", "xarray", "numpy", "scipy", "zarr", "pandas"}
    assert not heavy & modules_after("import mut3r_analysis")


def test_help_is_light():
    statement = "from mut3r_analysis.cli.main import build_parser; build_parser()"
    assert not {"torch", "matplotlib", "xarray"} & modules_after(statement)


def test_figures_are_imported_only_when_used():
    assert "matplotlib" not in modules_after("import mut3r_analysis as m3; m3.run")


def test_public_names_exist():
    for name in m3.__all__:
        assert getattr(m3, name) is not None, name
    assert set(m3.__all__) <= set(dir(m3))
    with pytest.raises(AttributeError, match=r"attribute .?runs"):
        m3.runs  # noqa: B018


ROOMS = (
    "errors", "foundation", "scenes", "sequences", "metrics", "attention", "backbones", "motion",
    "running", "foreign", "evaluation", "explaining", "literature", "figures", "training",
    "sweeps", "widgets", "exporting", "studies", "notebooks", "cli",
)  # fmt: skip
"""From the ground up: a room imports only from itself and from rooms before it."""


def module_graph() -> dict[str, set[str]]:
    """Every module of the package and what it imports: above, in functions, and for types only."""
    files = {}
    for path in (ROOT / "mut3r_analysis").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        files[".".join(parts).removesuffix(".__init__")] = path
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    found.add(name if name in files else node.module)
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
        graph[module] = {name for name in found if name in files} - {module}
    return graph


def test_imports_flow_one_way():
    def room(module: str) -> str:
        return module.split(".")[1] if "." in module else "the package itself"

    for module, imported in module_graph().items():
        if module.split(".")[-1] in ("mut3r_analysis", "__main__"):
            continue
        allowed = ROOMS[: ROOMS.index(room(module)) + 1]
        assert set(map(room, imported)) <= set(allowed), module


def test_no_modules_import_each_other_in_a_loop():
    try:
        list(TopologicalSorter(module_graph()).static_order())
    except CycleError as error:
        pytest.fail(f"these import each other: {' <- '.join(error.args[1])}")


def opens_text(call: ast.Call) -> bool:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    modes = [each.value for each in call.args if isinstance(each, ast.Constant)]
    return (isinstance(call.func, ast.Attribute) and name in ("read_text", "write_text")) or (
        name in ("open", "fdopen") and any(mode in ("r", "w", "a", "x", "r+") for mode in modes)
    )


def test_every_text_is_opened_with_its_encoding():
    # What a locale would choose differs between machines.
    for path in (ROOT / "mut3r_analysis").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and opens_text(node):
                given = {keyword.arg for keyword in node.keywords}
                assert "encoding" in given, f"{path.name}, line {node.lineno}"


def names_of_models() -> set[str]:
    """Names that stand for one kind of model: classes, configurations, rooms and families."""
    from mut3r_analysis.backbones.families import FAMILIES

    rows = FAMILIES.values()
    classes = {part.__name__ for row in rows for part in (row.model, row.config)}
    return classes | set(FAMILIES)


def test_nothing_outside_backbones_names_a_model():
    # A recipe says which model it makes; "cut3r" is also the name of a write rule.
    models, rules = names_of_models(), {"cut3r"}
    package = ROOT / "mut3r_analysis"
    for path in package.rglob("*.py"):
        name = path.relative_to(package).as_posix()
        if name.startswith("backbones/") or name == "training/recipe.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                found = set((node.module or "").split("."))
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.Name):
                found = {node.id}
            elif isinstance(node, ast.Attribute):
                found = {node.attr}
            elif isinstance(node, ast.Compare):
                parts = [node.left, *node.comparators]
                found = {part.value for part in parts if isinstance(part, ast.Constant)}
                found -= rules
            else:
                continue
            assert not found & models, f"{name}, line {node.lineno}: {found & models}"


def test_nothing_asks_a_backbone_what_it_might_have():
    for path in (ROOT / "mut3r_analysis").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            asks = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if asks and node.func.id in ("hasattr", "getattr") and node.args:
                target = ast.unparse(node.args[0])
                assert target not in ("backbone", "model", "self.backbone", "self._backbone"), (
                    f"{path.relative_to(ROOT)}, line {node.lineno}"
                )


def code_lines(text: str) -> set[int]:
    """Numbers of the lines that hold code: no comments, docstrings or blank lines."""
    empty = {
        tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
        tokenize.ENDMARKER,
    }  # fmt: skip
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in empty:
            found |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if documented and ast.get_docstring(node) is not None:
            found -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return found


def test_a_function_is_read_at_a_glance_and_a_module_in_one_sitting():
    long = set()
    for path in (ROOT / "mut3r_analysis").rglob("*.py"):
        name, text = path.relative_to(ROOT / "mut3r_analysis").as_posix(), path.read_text()
        code = code_lines(text)
        if text.count("\n") > 500:
            long.add(name)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = code & set(range(node.lineno, node.end_lineno + 1))
                if len(lines) > 60:
                    long.add(f"{name}: {node.name}")
    assert not long


def test_names_do_not_change_when_submodules_are_imported():
    first = m3.published
    assert callable(first)
    assert m3.published is first
    assert callable(m3.run)


def test_environment_equals_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, packages = environment["dependencies"]
    assert python == f"python{PYPROJECT['project']['requires-python']}"
    assert pip == "pip"
    extras = PYPROJECT["project"]["optional-dependencies"]
    declared = list(PYPROJECT["project"]["dependencies"])
    for extra in ("cluster", "docs", "test"):
        declared += extras[extra]
    assert packages["pip"] == [*declared, "-e ."]


def test_data_ships_in_the_wheel():
    build = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    tracked = subprocess.run(
        ["git", "ls-files", "data"], capture_output=True, text=True, check=False, cwd=ROOT
    ).stdout.split()
    for folder in {path.rsplit("/", 1)[0] for path in tracked if path.count("/") > 1}:
        assert build["force-include"][folder] == f"mut3r_analysis/{folder}", folder
    assert data_path("selftest", "cut3r-tiny.npz").is_file()


def test_missing_data_lists_what_is_there():
    with pytest.raises(MissingFile, match=r"data/selftest holds: .*cut3r-tiny\.npz"):
        data_path("selftest", "nothing.npz")


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_are_committed_without_outputs(path):
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"], cell["source"]
            assert cell["execution_count"] is None


def test_readme_names_every_make_target_that_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = makefile.split(".PHONY:")[1].splitlines()[0].split()
    readme = (ROOT / "README.md").read_text()
    for target in targets:
        assert f"make {target}" in readme, target


def test_the_code_of_the_readme_runs_from_top_to_bottom(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"README, block {number}", "exec"), names)
    assert {"run", "gated", "table", "scores"} <= set(names)


WITHOUT_NAMES = {"errors", "foundation", "studies", "notebooks"}
"""Rooms whose modules are imported by name."""


@pytest.mark.parametrize("room", ["", *(room for room in ROOMS if room not in WITHOUT_NAMES)])
def test_completion_offers_the_public_names_of_a_room(room):
    module = importlib.import_module(f"mut3r_analysis.{room}".rstrip("."))
    completer = IPCompleter(namespace={"room": module})
    completer.use_jedi = False
    completer.disable_matchers = ["IPCompleter.magic_matcher"]  # it wants a running shell
    with provisionalcompleter():
        found = list(completer.completions("room.", len("room.")))
    offered = {each.text.removeprefix(".") for each in found}
    assert offered == {name for name in module.__all__ if not name.startswith("_")}


@pytest.mark.parametrize("room", ["", *(room for room in ROOMS if room not in WITHOUT_NAMES)])
def test_signatures_show_what_may_be_given(room):
    module = importlib.import_module(f"mut3r_analysis.{room}".rstrip("."))
    for name in module.__all__:
        if callable(public := getattr(module, name)):
            with contextlib.suppress(ValueError):  # what is made by no Python function has none
                shown = str(inspect.signature(public))
                assert "Checked[" not in shown, name
                assert "_array_like" not in shown, name


def test_the_whole_command_line_is_in_the_readme():
    from mut3r_analysis.cli.main import build_parser

    readme = (ROOT / "README.md").read_text()
    for verb in build_parser()._subparsers._group_actions[0].choices:
        assert f"mut3r {verb}" in readme, verb
