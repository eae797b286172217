"""Write the generated parts of docs/reference/errors-and-checks.md: each message, as the code has it.

Run it as ``python scripts/messages.py`` after a message has changed; ``--check`` only says whether the page is up to
date, for the tests. What is generated stands between two comments, ``<!-- begin: name -->`` and ``<!-- end: name -->``.
The code is read and not run, but for the observations: a message is a literal where it is raised.
"""

import ast
import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "djcrf_pg"
PAGE = ROOT / "docs" / "reference" / "errors-and-checks.md"

#: Functions that return the sentences of a message that is raised elsewhere.
_REASONS = {"diagnosis.py": (), "listener/embedded.py": ("_obstacle", "_join"), "capture/tenancy.py": ("refusal",)}

#: The length from which on a text that is returned is a sentence.
_SENTENCE = 30

Functions = dict[str, ast.FunctionDef | ast.AsyncFunctionDef]


def text_of(node: ast.expr | None, functions: Functions) -> str:
    """A message as a reader sees it, with an ellipsis for what is filled in."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(text_of(part, functions) for part in parts)
        case ast.FormattedValue(value=ast.Call() as call):
            return text_of(call, functions)
        case ast.BinOp(left=left, right=right):
            return text_of(left, functions) + text_of(right, functions)
        case ast.BoolOp(op=ast.Or(), values=values):
            return text_of(values[-1], functions)
        case ast.Call(func=ast.Name(id="see"), args=[ast.Constant(value=str(page))]):
            path = page.removeprefix("reference/") if page.startswith("reference/") else f"../{page}"
            return f"[More]({path})."
        case ast.Call(func=ast.Name(id=name)) if name in functions:
            return " Or: ".join(returned(functions[name], functions)) or "…"
    return "…"


def returned(function: ast.AST, functions: Functions) -> Iterator[str]:
    """The sentences that a function returns."""
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and len(text := text_of(node.value, {})) > _SENTENCE:
            yield text if not functions else text_of(node.value, functions)


def functions_of(tree: ast.Module) -> Functions:
    """The functions of a module, by name."""
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def parsed(path: Path) -> ast.Module:
    """The tree of a module."""
    return ast.parse(path.read_text("utf-8"))


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table of Markdown."""
    cells = [head, ("---",) * len(head), *rows]
    lines = ["| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in row) + " |" for row in cells]
    return "\n".join(line.replace("| --- ", "|---").replace("|--- |", "|---|") for line in lines)


def checks() -> str:
    """The table of the checks."""
    tree = parsed(PACKAGE / "checks.py")
    functions = functions_of(tree)
    marked = {
        call.args[0].id
        for call in ast.walk(functions["register_all"])
        if isinstance(call, ast.Call) and len(call.args) > 1 and isinstance(call.args[0], ast.Name)
    }
    rows = []
    for function in functions.values():
        checked = (ast.get_docstring(function) or "").partition("\n")[0].replace("``", "`")
        for call in ast.walk(function):
            given = {each.arg: each.value for each in call.keywords} if isinstance(call, ast.Call) else {}
            if isinstance(call, ast.Call) and "id" in given:
                mark = " (database)" if function.name in marked else ""
                hint = text_of(given["hint"], functions) if "hint" in given else "As the message says."
                message = text_of(call.args[0], functions)
                number = text_of(given["id"], functions)
                rows.append((f"`{number}`{mark}", "It varies." if message == "…" else message, checked, hint))
    rows.sort(key=lambda row: re.findall(r"\d+", row[0]))
    return table(("Id", "Message", "What is checked", "Fix"), rows)


def refusals() -> str:
    """The messages of each error, by its name."""
    names = {node.name for node in parsed(PACKAGE / "exceptions.py").body if isinstance(node, ast.ClassDef)}
    names.add("CommandError")
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(parsed(path)):
            match node:
                case ast.Raise(exc=ast.Call(func=ast.Name(id=name), args=[message, *_])) if name in names | {
                    "CommandError"
                }:
                    text = " ".join(text_of(message, {}).split())
                    if text.strip("… .") and text not in found.setdefault(name, []):
                        found[name].append(text)
    parts = []
    for name in sorted(found):
        parts.append(f"### `{name}`\n\n" + "\n".join(f"- {text}" for text in found[name]))
    return "\n\n".join(parts)


def reasons() -> str:
    """What a database or a channel layer lacks, wherever that is said."""
    lines: list[str] = []
    for name, wanted in _REASONS.items():
        for function in functions_of(parsed(PACKAGE / name)).values():
            if not wanted or function.name in wanted:
                lines += [f"- {' '.join(text.split())}" for text in returned(function, {})]
    return "\n".join(dict.fromkeys(lines))


def observations() -> str:
    """The table of the lines of the log."""
    sys.path.insert(0, str(ROOT))
    from djcrf_pg.observations import Observation

    rows = []
    for _, kind in sorted({kind.__name__: kind for kind in Observation.__subclasses__()}.items()):
        level = logging.getLevelName(kind.level).lower()
        template = re.sub(r"\{\w+(![rs])?(:[^}]*)?\}", "…", kind.template)
        rows.append((f"`{kind.__name__}`", level, template, inspect.getdoc(kind) or ""))
    return table(("Observation", "Level", "Line", "Cause"), rows).replace("``", "`")


PARTS: dict[str, Callable[[], str]] = {
    "checks": checks,
    "refusals": refusals,
    "reasons": reasons,
    "observations": observations,
}


def page(text: str) -> str:
    """The page with its generated parts as they should be."""
    for name, make in PARTS.items():
        begin, end = f"<!-- begin: {name} -->\n", f"\n<!-- end: {name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}{make()}{end}{after}"
    return text


if __name__ == "__main__":
    old = PAGE.read_text("utf-8")
    new = page(old)
    if "--check" not in sys.argv:
        PAGE.write_text(new, "utf-8")
    elif old != new:
        sys.exit(f"{PAGE.relative_to(ROOT)} is not what the code says: run `make messages`.")
