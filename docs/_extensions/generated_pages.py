"""Pages that are written from the package itself, so that nothing is typed twice.

The reference from the names that each part makes public, the command line from its parsers, the
gallery from the notebooks and their map, and the cards of the bundled models.
"""

import ast
import inspect
import re
from functools import cache
from importlib import import_module
from pathlib import Path

from docutils import nodes
from gallery import write_gallery
from registries import registries_page
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer

import mut3r_analysis
from mut3r_analysis.cli.main import build_parser

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mut3r_analysis"


def heading(text: str, line: str = "=") -> str:
    return f"{text}\n{line * len(text)}\n"


def write(path: Path, text: str) -> None:
    """Write what has changed; Sphinx reads a page again when its file is newer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def public_parts() -> list[str]:
    """Modules that say in a stub which names they make public, the package itself first."""
    stubs = sorted(PACKAGE.glob("*/__init__.pyi"))
    return ["mut3r_analysis", *(f"mut3r_analysis.{stub.parent.name}" for stub in stubs)]


def origin_of(module: str, name: str) -> str:
    """Return the module in which a stub says that a name is defined."""
    stub = (ROOT / module.replace(".", "/") / "__init__.pyi").read_text(encoding="utf-8")
    found = re.search(rf"from \.([\w.]*) import \(?\s*{name} as {name}", stub)
    return f"{module}.{found[1]}" if found and found[1] else module


def data_page(module: str, name: str) -> str:
    """Return a page for a constant, whose docstring stands below it in its own module."""
    value = getattr(import_module(module), name)
    origin = origin_of(module, name)
    docs = ModuleAnalyzer.for_module(origin).find_attr_docs().get(("", name), [])
    lines = [f".. py:data:: {module}.{name}", "", *(f"   {line}" for line in docs), ""]
    if isinstance(value, dict | tuple | list | set | frozenset):
        entries = ", ".join(f"``{entry}``" for entry in value)
        lines += [f"   Holds {entries}.", ""]
    return heading(name) + "\n" + "\n".join(lines)


def name_page(module: str, name: str) -> str:
    value = getattr(import_module(module), name)
    if inspect.isclass(value):
        directive = f".. autoclass:: {module}.{name}\n   :members:\n"
    elif callable(value):
        directive = f".. autofunction:: {module}.{name}\n"
    else:
        return data_page(module, name)
    return f"{heading(name)}\n{directive}"


def summary(value: object, fallback: str) -> str:
    """Return the first sentence of a docstring."""
    text = inspect.getdoc(value) if callable(value) or inspect.ismodule(value) else fallback
    return " ".join((text or "").split("\n\n")[0].split())


def write_reference(folder: Path) -> None:
    """Write one page for each public name, and one for each part of the package."""
    top = {
        id(getattr(mut3r_analysis, name)): name
        for name in mut3r_analysis.__all__
        if callable(getattr(mut3r_analysis, name))
    }
    parts = []
    for module in public_parts():
        part = import_module(module)
        rows, pages = [], []
        for name in sorted(part.__all__, key=str.lower):
            value = getattr(part, name)
            if inspect.ismodule(value) or name.startswith("_"):
                continue
            # What the package itself offers is described there.
            home = "mut3r_analysis" if id(value) in top else module
            page = f"{home}.{name}"
            if home == module:
                write(folder / f"{page}.rst", name_page(module, name))
                pages.append(f"   {page}")
            docs = ModuleAnalyzer.for_module(origin_of(module, name)).find_attr_docs()
            told = summary(value, " ".join(docs.get(("", name), [])))
            rows.append(f"   * - :doc:`{name} <{page}>`\n     - {told}")
        table = ".. list-table::\n   :widths: 30 70\n\n" + "\n".join(rows)
        toctree = ".. toctree::\n   :hidden:\n\n" + "\n".join(pages)
        text = f".. py:module:: {module}\n\n{heading(module)}\n{inspect.getdoc(part)}\n\n"
        write(folder / f"{module}.rst", f"{text}{table}\n\n{toctree}\n")
        parts.append((module, summary(part, "")))
    rows = [f"   * - :doc:`{module} <{module}>`\n     - {told}" for module, told in parts]
    # Without the package's name, which would be broken in two beside the page.
    entries = "\n".join(f"   {m.removeprefix('mut3r_analysis.')} <{m}>" for m, _ in parts)
    write(
        folder / "index.rst",
        f"{heading('Reference')}\nWritten from the docstrings. Start with :doc:`mut3r_analysis`, "
        "whose names are those of ``import mut3r_analysis as m3``.\n\n"
        ".. list-table::\n   :widths: 35 65\n\n" + "\n".join(rows) + "\n"
        "   * - :doc:`mut3r <command_line>`\n     - The command line.\n"
        "   * - :doc:`Names <names>`\n     - Statistics, sites, readings, realisations, write "
        "rules, data sets, metrics and protocols, with their formulas.\n\n"
        f".. toctree::\n   :hidden:\n\n{entries}\n   command_line\n   names\n",
    )
    write(folder / "names.rst", registries_page())


def write_command_line(folder: Path) -> None:
    """Write what ``mut3r --help`` says, verb by verb."""
    parser = build_parser()
    (verbs,) = (each for each in parser._actions if isinstance(each.choices, dict))
    text = [heading("Command line"), "\n", block(parser.format_help())]
    for verb, its_parser in verbs.choices.items():
        text += [heading(f"mut3r {verb}", "-"), "\n", block(its_parser.format_help())]
    write(folder / "command_line.rst", "".join(text))


def block(text: str) -> str:
    indented = "\n".join(f"   {line}".rstrip() for line in text.splitlines())
    return f".. code-block:: text\n\n{indented}\n\n"


def write_cards(folder: Path) -> None:
    """Copy the cards of bundled models, below the words that introduce them."""
    cards = sorted((ROOT / "data" / "checkpoints").glob("*.md"))
    names = []
    for card in cards:
        if card.stem == "README":
            continue
        write(folder / f"{card.stem}.md", card.read_text(encoding="utf-8"))
        names.append(card.stem)
    introduction = (ROOT / "data" / "checkpoints" / "README.md").read_text(encoding="utf-8")
    introduction = introduction.replace("# Checkpoints", "# Model cards")
    toctree = "\n".join(["```{toctree}", ":maxdepth: 1", "", *names, "```"])
    write(folder / "index.md", f"{introduction}\n{toctree}\n")


def write_pages(app: Sphinx) -> None:
    source = Path(app.srcdir)
    write_reference(source / "reference")
    write_command_line(source / "reference")
    write_cards(source / "model_cards")
    write_gallery(source / "gallery")


def find_public_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Node
) -> nodes.Node | None:
    """Resolve a name that is public elsewhere than where a docstring has it from.

    One that is not public is shown without a link. One that does not exist stays a warning.
    """
    if node.get("refdomain") != "py":
        return None
    last = node["reftarget"].rpartition(".")[2]
    names = [f"{module}.{last}" for module in public_parts()]
    python = env.domains.python_domain
    for name in names:
        if name in python.objects:
            found = python.objects[name]
            where = app.builder.get_relative_uri(node["refdoc"], found.docname)
            return nodes.reference("", "", text, internal=True, refuri=f"{where}#{found.node_id}")
    return text if last in defined_names() else None


@cache
def defined_names() -> set[str]:
    """Every function, class, constant and field that the package defines."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.id if isinstance(node, ast.Name) else node.attr)
    return found


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_pages)
    app.connect("missing-reference", find_public_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
