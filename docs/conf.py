"""How the documentation is built: `make docs`."""

import json
import os
import sys
from pathlib import Path

from mut3r_analysis.foundation.version import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "mut3r_analysis"
author = copyright = "mut3r_analysis contributors"
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_nb",
    "sphinx_design",
    "generated_pages",
    "mathml",
]
exclude_patterns = ["_extensions", "_saved"]
nitpicky = True

# Reference: pages are written by `generated_pages` from the names that each part makes public.
autosummary_generate = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
numpydoc_show_class_members = False

# Pages that compute what they say; the gallery shows notebooks as they were left, see there.
nb_execution_mode = "force"
# Kernels log errors alone; otherwise each talks about its transport. An error that a page shows on
# purpose is shown by its message, and attributes are folded: a scene's are pages long.
PROFILE = HERE.parent / "outputs" / "ipython" / "profile_default"
PROFILE.mkdir(parents=True, exist_ok=True)
(PROFILE / "ipython_kernel_config.json").write_text(
    json.dumps(
        {
            "IPKernelApp": {
                "log_level": 40,
                "exec_lines": ["__import__('xarray').set_options(display_expand_attrs=False)"],
            },
            "InteractiveShell": {"xmode": "Minimal"},
        }
    )
)
os.environ["IPYTHONDIR"] = str(PROFILE.parent)
nb_execution_excludepatterns = ["gallery/*"]
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_ipywidgets_js = {}
# Findings are tables, which plain CommonMark does not have.
nb_render_markdown_format = "myst"
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3

# Everything is served from the pages' own folder: they read the same without a network.
html_theme = "pydata_sphinx_theme"
html_title = "mut3r_analysis"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
# Explorers that pages save here stand beside them.
(HERE / "_saved" / "explorers").mkdir(parents=True, exist_ok=True)
html_extra_path = ["_saved"]
html_show_sourcelink = False
html_copy_source = False
# Summaries of what a search finds are fetched, which pages on disk may not do.
html_show_search_summary = False
html_theme_options = {
    "show_prev_next": True,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
