"""A real JupyterLab and a headless Chromium, to see what a reader sees and how long it takes."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TOKEN = "explorers"
CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--enable-unsafe-swiftshader",
    # Nothing but this machine has a name: a page that needs a network fails here.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]


@contextmanager
def a_page(width: int = 1100, height: int = 1400) -> Iterator[tuple[Any, list[str]]]:
    """Open an empty page; errors it logs are collected, and requests to other machines count."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": width, "height": height})
        errors: list[str] = []
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "request",
            lambda asked: None if _local(asked.url) else errors.append(f"asked for {asked.url}"),
        )
        try:
            yield page, errors
        finally:
            browser.close()


def _local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "file:", "data:", "blob:"))


@contextmanager
def a_lab(folder: Path) -> Iterator[str]:
    """Start JupyterLab over a folder; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = folder / ".home"
    log = (folder / "lab.log").open("w")
    settings = {
        name: str(home / name.lower())
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    }
    lab = subprocess.Popen(
        [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
            f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1",
            f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}",
            "--expose-app-in-browser", "--LabApp.news_url=",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        ],
        stdout=log, stderr=log, env=os.environ | settings,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(address, lab)
        yield address
    finally:
        lab.terminate()
        lab.wait(20)
        log.close()


def _wait(address: str, lab: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until:
        if lab.poll() is not None:
            raise RuntimeError("JupyterLab ended before it answered")
        try:
            urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise TimeoutError("JupyterLab did not answer within three minutes")


def open_notebook(page: Any, address: str, name: str) -> None:
    """Open a notebook and run all its cells; notebooks opened before stay closed."""
    page.goto(f"{address}/lab/workspaces/{Path(name).stem}/tree/{name}?token={TOKEN}")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=180_000)
    session = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session"
    page.wait_for_function(f"{session}?.kernel?.status === 'idle'", timeout=180_000)
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")


def write_notebook(path: Path, *cells: str) -> Path:
    """Write a notebook of code cells."""
    written = [
        {
            "cell_type": "code", "id": f"cell-{at}", "metadata": {}, "outputs": [],
            "source": source, "execution_count": None,
        }
        for at, source in enumerate(cells)
    ]  # fmt: skip
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = {"cells": written, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook))
    return path


def with_parameters(source: Path, target: Path, parameters: dict[str, Any], last: str = "") -> Path:
    """Copy a notebook with other parameters, and with one cell more at its end."""
    notebook = json.loads(source.read_text())
    cell = next(
        each for each in notebook["cells"] if "parameters" in each["metadata"].get("tags", [])
    )
    cell["source"] = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    more = {"cell_type": "code", "id": "last", "metadata": {}, "outputs": [], "source": last}
    notebook["cells"].append(more | {"execution_count": None})
    target.write_text(json.dumps(notebook))
    return target
