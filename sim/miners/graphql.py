"""Just enough GraphQL for a simulated miner: which fields a query selects, and a tree cut down to them.

A server that answered with everything it has would hide a query that forgot a field, so the selection is honoured.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

Selection = dict[str, Any]  # field -> its own selection, empty for a leaf
_TOKENS = re.compile(r"\.\.\.|[{}]|\([^()]*\)|\w+")


def parse(query: str) -> tuple[bool, Selection]:
    """(whether it is a mutation, what it selects); raises ValueError for what is not a query. Arguments are skipped."""
    tokens = iter(_TOKENS.findall(query))
    head = []
    for word in tokens:
        if word == "{":
            return "mutation" in head, _body(tokens)
        head.append(word)
    raise ValueError("no selection")


def _body(tokens: Iterator[str]) -> Selection:
    selection: Selection = {}
    last = ""
    fragment = False
    for word in tokens:
        if word == "}":
            return selection
        if word == "...":
            fragment = True
        elif word == "{":
            inner = _body(tokens)
            if fragment:
                selection.update(inner)
                fragment = False
            else:
                selection[last] = inner
        elif not word.startswith("(") and not fragment:
            last = word
            selection[last] = {}
    raise ValueError("selection is not closed")


def cut(tree: Any, selection: Selection) -> Any:
    """The tree with the selected fields only; raises KeyError for a field it does not have."""
    if isinstance(tree, list):
        return [cut(row, selection) for row in tree]
    if not isinstance(tree, Mapping):
        return tree
    return {field: cut(tree[field], inner) for field, inner in selection.items()}
