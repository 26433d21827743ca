"""An extension of griffe: the reStructuredText of docstrings becomes Markdown, and ``#:`` comments document attributes."""

import re

import griffe

_ROLE = re.compile(r":(?:class|data|func|meth|mod|attr):`(~?)([\w.]+)`")
_PRODUCT = re.compile(r"(?<=[\w)])\*(?=[\w(])")
_TABLE = re.compile(r"^(=+(?: +=+)+)\n(.+\n)\1\n((?:.+\n)+?)\1$", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Converts every docstring when it is loaded."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)

    def on_package(self, *, pkg: griffe.Module, **kwargs) -> None:
        """Functions that have the name of their module: the package exports the function."""
        for name in pkg["ops"].exports or ():
            module = pkg["ops"].members[name]
            if module.is_module and name in pkg.members:
                pkg.set_member(name, griffe.Alias(name, module[name]))

    def on_attribute(self, *, attr: griffe.Attribute, **kwargs) -> None:
        if attr.docstring is None and attr.lineno and (comment := _comment_above(attr)):
            attr.docstring = griffe.Docstring(to_markdown(comment), parent=attr)


def to_markdown(text: str) -> str:
    """Roles, simple tables, examples, products and the colons before literal blocks, as Markdown."""
    text = _TABLE.sub(_table, text)
    text = re.sub(r"::$", ":", text, flags=re.MULTILINE)
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    text = re.sub(r"^>>> (?:.+\n?)+", lambda match: f"```pycon\n{match[0].rstrip()}\n```\n", text, flags=re.MULTILINE)
    parts = re.split(r"(```.+?```|``.+?``|^ *(?:>>>|\.\.\.)[^\n]*)", text, flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [_ROLE.sub(_reference, _PRODUCT.sub(r"\\*", prose)) for prose in parts[::2]]
    return "".join(parts)


def _reference(match: re.Match) -> str:
    tilde, name = match.groups()
    shown = name.rpartition(".")[2] if tilde else name
    return f'<autoref identifier="{name}" optional><code>{shown}</code></autoref>' if "." in name else f"`{shown}`"


def _table(match: re.Match) -> str:
    rule, header, body = match.groups()
    columns = [(part.start(), part.end()) for part in re.finditer("=+", rule)]
    columns[-1] = (columns[-1][0], None)

    def row(line: str) -> str:
        return "| " + " | ".join(line[begin:end].strip() for begin, end in columns) + " |"

    return "\n".join([row(header.rstrip("\n")), "|" + "---|" * len(columns), *map(row, body.splitlines())])


def _comment_above(attr: griffe.Attribute) -> str:
    lines = attr.lines_collection[attr.filepath][: attr.lineno - 1]
    comment: list[str] = []
    while lines and lines[-1].startswith("#:"):
        comment.insert(0, lines.pop()[2:].strip())
    return " ".join(comment)
