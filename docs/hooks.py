"""Hooks of mkdocs: figures and tables are made when the site is built, and files of the repository can be linked to.

In a page,

- ``{{ name argument ... }}`` is replaced by what ``insertions.py`` returns for that name;
- ``![text](../figures/NAME.svg)`` shows what ``figures/NAME.py`` draws, in the colors of the reader's theme;
- a link to a file outside of docs/, such as ``../benchmarks/NOTES.md``, leads to a copy of it in the site. Markdown becomes a page.
"""

import os
import posixpath
import re
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS), str(DOCS / "figures"), str(ROOT)]

from mkdocs.exceptions import PluginError  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402

import insertions  # noqa: E402
from drawing import themed  # noqa: E402

#: The function that draws each figure. mkdocs restores sys.path after it has loaded this file.
FIGURES = {
    script.stem: import_module(script.stem).draw for script in sorted((DOCS / "figures").glob("*.py")) if script.stem != "drawing"
}
#: Where files of the repository are in the site.
REPOSITORY = "repository"
_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
_FIGURE = re.compile(r"!\[([^\]]*)\]\(((?:\.\./)*figures/[\w-]+)\.svg\)")
_TABLE = re.compile(r"^\|.*\n\|[-:| ]+\n(?:\|.*(?:\n|\Z))+", re.MULTILINE)
#: Cells of up to this many characters do not wrap.
_SHORT = 45
_INSERTION = re.compile(r"\{\{ (\w+)((?: [\w./-]+)*) \}\}")


def on_files(files: Files, config) -> Files:
    for name, draw in FIGURES.items():
        for theme, svg in themed(draw):
            files.append(File.generated(config, f"figures/{name}-{theme}.svg", content=svg))
    linked: set[str] = set()
    for file in files.documentation_pages():
        text = _insert(Path(file.abs_src_path).read_text(), file.src_uri)
        linked.update(filter(None, (_repository_path(link[1], file.src_uri) for link in _LINK.findall(text))))
    while linked:
        path = linked.pop()
        uri = f"{REPOSITORY}/{path}"
        if files.get_file_from_path(uri) is None and (ROOT / path).is_file():
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
            if path.endswith(".md"):
                targets = (link[1] for link in _LINK.findall((ROOT / path).read_text()))
                linked.update(posixpath.normpath(posixpath.join(posixpath.dirname(path), target)) for target in targets)
    return files


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
    uri = page.file.src_uri
    if uri.startswith(f"{REPOSITORY}/"):
        return _keep_lines(markdown)
    markdown = _insert(markdown, uri)
    markdown = _FIGURE.sub(r"![\1](\2-light.svg#only-light){ .figure }![\1](\2-dark.svg#only-dark){ .figure }", markdown)

    def to_copy(match: re.Match) -> str:
        path = _repository_path(match[2], uri)
        target = posixpath.relpath(f"{REPOSITORY}/{path}", posixpath.dirname(uri)) if path else match[2]
        return match[1] + target + match[3]

    return _keep_lines(_LINK.sub(to_copy, markdown))


def _keep_lines(markdown: str) -> str:
    """Tables of short cells get the class "short", in which cells do not wrap."""

    def classed(match: re.Match) -> str:
        cells = [cell.strip() for line in match[0].splitlines()[2:] for cell in line.split("|")]
        if max(map(len, cells), default=0) > _SHORT:
            return match[0]
        return f'<div class="short" markdown>\n\n{match[0].rstrip()}\n\n</div>\n'

    return _TABLE.sub(classed, markdown)


@cache
def _insert(markdown: str, uri: str) -> str:
    def result(match: re.Match) -> str:
        function = insertions.FUNCTIONS.get(match[1])
        if function is None:
            raise PluginError(f"{uri}: {match[0]} names none of {', '.join(insertions.FUNCTIONS)}")
        return function(*match[2].split())

    return _INSERTION.sub(result, markdown)


def _repository_path(link: str, uri: str) -> str | None:
    """The path in the repository that a link of a page leads to, if it is outside of docs/."""
    if re.match(r"[a-z]+:", link):
        return None
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(uri), link))
    return None if path.startswith(("docs/", "..", os.sep)) else path
