"""Sphinx's settings: python -m sphinx -W -b html docs build/docs, with what the docs extra brings.

The pages are the Markdown files beside this one, as they are; the API reference is written anew at
every build, a page for each room with all its public names.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from api import plain, rooms

import sdegen

HERE = Path(__file__).parent
project, author = "sdegen", "the sdegen authors"
version = release = sdegen.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.viewcode", "myst_nb"]
exclude_patterns = ["_build", "api/*.py", "api/__pycache__"]
html_theme, html_title = "furo", f"sdegen {version}"
html_extra_path = ["../benchmarks/report.html"]
html_copy_source, html_show_sphinx = False, False
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
suppress_warnings = ["myst.header"]  # pages of the repository may begin with a table of contents
autodoc_member_order, autodoc_typehints = "bysource", "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
nb_execution_mode = "force"  # notebooks are kept without their outputs
nb_output_stderr = "remove"
nb_execution_raise_on_error, nb_execution_timeout = True, 300

CONTENTS = """
```{toctree}
:hidden:
:caption: Use it

sampling
guidance
text
clip
inverse
editing
restoration
cascades
video
score-distillation
likelihood
compression
diffusers
training
few-steps
adapters
latents
sequences
scale
data
metrics
add-an-experiment
page
tuning
gallery/index
reading
```

```{toctree}
:hidden:
:caption: Notebooks

notebooks/first_steps
notebooks/diffusers_checkpoint
notebooks/own_sde_and_solver
```

```{toctree}
:hidden:
:caption: Extend it

add-an-sde
add-a-solver
networks
your-own-network
```

```{toctree}
:hidden:
:caption: Look it up

solvers
tables
notation
rooms
api/index
benchmarks
convergence
references
licences
design
```
"""
"""What the site's index has beside the page, which is also read where there is no site."""


def read(app: Any, name: str, source: list[str]) -> None:
    """A page as the site has it: with contents, and links to what lies outside docs/."""
    text = re.sub(
        r"\[([^\]]*)\]\(\.\./benchmarks/(report\.html)\)", r'<a href="\2">\1</a>', source[0]
    )
    # A folder outside has no page: its name is all there is.
    text = text.replace(
        "[examples/own_package](../examples/own_package)", "`examples/own_package`"
    )
    source[0] = text + CONTENTS if name == "index" else text


def described(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """A docstring, which is plain text, as reStructuredText."""
    lines[:] = plain.as_rest(lines)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    rooms.write(HERE / "api")
    app.connect("source-read", read)
    app.connect("autodoc-process-docstring", described)
