"""Tables for people, JSON for machines."""

import json
from pathlib import Path


def markdown(head, rows):
    """A Markdown table that also reads well as plain text: columns are padded."""
    cells = [head, *rows]
    widths = [max(len(str(row[at])) for row in cells) for at in range(len(head))]
    line = lambda row: "| " + " | ".join(str(cell).ljust(width) for cell, width in zip(row, widths)) + " |"
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])


def write_json(path, document):
    """Written beside and renamed, so that a reader never sees half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".part")
    half.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    half.replace(path)
