"""What ``import s2mlp_cuda`` makes available, and what it leaves out."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import s2mlp_cuda

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_citation_has_the_version_and_both_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == s2mlp_cuda.__version__
    papers = [reference["url"] for reference in citation["references"]]
    assert papers == ["https://arxiv.org/abs/2106.07477", "https://arxiv.org/abs/2108.01072"]
    assert all(url in README for url in papers)


def test_documented_names_are_reachable():
    """After ``import s2mlp_cuda`` alone, as README and documentation write them."""
    texts = [README, *(page.read_text() for page in (ROOT / "docs").rglob("*.md"))]
    names = sorted({name for text in texts for name in re.findall(r"(?<![\w/.])s2mlp_cuda((?:\.[a-zA-Z]\w*)+)", text)})
    assert {".convert.convert", ".export.to_onnx", ".models.register_models", ".offsets", ".timm"} <= set(names)
    code = "import s2mlp_cuda; from operator import attrgetter; found = [attrgetter(name)(s2mlp_cuda) for name in {}]"
    python(code.format([name[1:] for name in names]))


def test_all_public_submodules_are_reachable():
    folder = Path(s2mlp_cuda.__file__).parent
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    names = {name for name in names if not name.startswith("_")} - {"cli"}  # cli is the program
    assert names <= set(dir(s2mlp_cuda))
    assert {name for name in names if not inspect.ismodule(getattr(s2mlp_cuda, name))} == set()
    assert s2mlp_cuda.convert is sys.modules["s2mlp_cuda.convert"]


def test_import_is_light():
    heavy = (
        "timm",
        "torchvision",
        "huggingface_hub",
        "onnx",
        "rich",
        "matplotlib",
        "sklearn",
        "s2mlp_cuda.training",
        "s2mlp_cuda.bench",
    )
    code = f"import sys, s2mlp_cuda; before = dir(s2mlp_cuda); print([name for name in {heavy} if name in sys.modules])"
    assert python(code) == "[]\n"


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="module 's2mlp_cuda' has no attribute 'convart'"):
        _ = s2mlp_cuda.convart


def test_submodule_whose_extra_is_missing(monkeypatch):
    """An AttributeError, so that hasattr and inspect work, with the reason; an import raises the original error."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules, "s2mlp_cuda.hub", raising=False)
    monkeypatch.delattr(s2mlp_cuda, "hub", raising=False)
    reason = "huggingface_hub is not installed: pip install 's2mlp_cuda[hub]'"
    assert not hasattr(s2mlp_cuda, "hub") and inspect.getmembers(s2mlp_cuda)
    with pytest.raises(AttributeError, match=re.escape(f"s2mlp_cuda.hub cannot be imported: {reason}")):
        _ = s2mlp_cuda.hub
    with pytest.raises(ModuleNotFoundError, match=re.escape(reason)):
        from s2mlp_cuda import hub  # noqa: F401
