"""The documentation site is built without a warning, and the Python of its pages runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import s2mlp_cuda

pytest.importorskip("mkdocs", reason="mkdocs is not installed")

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    built = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert built.returncode == 0, built.stderr[-3000:]
    return folder


def test_site_contains_every_page_and_figure(site):
    for page in PAGES:
        assert (site / page.relative_to(DOCS).with_suffix(".html")).is_file(), page
    for script in (DOCS / "figures").glob("*.py"):
        names = [] if script.stem == "drawing" else [f"{script.stem}-light.svg", f"{script.stem}-dark.svg"]
        for name in names:
            assert (site / "figures" / name).stat().st_size > 1000, name
            assert any(f"figures/{name}#only-" in page.read_text() for page in site.rglob("*.html")), f"{name} is on no page"


def test_site_documents_every_public_name(site):
    api = "".join(page.read_text() for page in (site / "api").glob("*.html"))
    modules = {"decompositions", "offsets", "reference", "__version__"}
    for name in set(s2mlp_cuda.__all__) - modules:
        assert re.search(rf'id="s2mlp_cuda\.(?:[\w.]+\.)?{name}"', api), name
    for name in s2mlp_cuda.offsets.PRESETS:
        assert f'id="s2mlp_cuda.offsets.{name}"' in api, name
    assert ":func:" not in api and ":class:" not in api and "&gt;&gt;&gt;</p>" not in api


def test_site_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]*?\bsrc="?([^" >]+)', page.read_text())
        loaded += re.findall(r'<link[^>]*?rel="?(?:stylesheet|preconnect|icon)[^>]*?href="?([^" >]+)', page.read_text())
        assert loaded and not [url for url in loaded if re.match(r"(?:https?:)?//", url)], page


def test_dead_links_are_errors(tmp_path, caplog):
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort

    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[x](no_page.md) [x](../benchmarks/no_file.md) [x](../benchmarks/NOTES.md)")
    (tmp_path / "mkdocs.yml").write_text(f"site_name: x\nhooks: [{DOCS}/hooks.py]\n")
    with pytest.raises(Abort, match="2 warnings"):
        build(load_config(str(tmp_path / "mkdocs.yml"), strict=True))
    assert "'no_page.md'" in caplog.text and "/no_file.md'" in caplog.text
    assert (tmp_path / "site" / "repository" / "benchmarks" / "NOTES" / "index.html").is_file()


def test_unknown_insertions_are_errors():
    import hooks

    assert hooks._insert("{{ row_gradient }}", "page.md") == "[2, 1, 1, 1, 0]"
    with pytest.raises(hooks.PluginError, match="page.md: {{ rows }} names none of"):
        hooks._insert("{{ rows }}", "page.md")


@pytest.mark.parametrize(
    "page", [page for page in PAGES if DOCS / "guides" not in page.parents], ids=lambda page: page.relative_to(DOCS).as_posix()
)
def test_python_blocks_run_in_order(page, capsys):
    """Guides show parts of examples instead, which test_examples runs."""
    blocks = re.findall(r"^```python\n(.+?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    names = {}
    for block in blocks:
        exec(block, names)
