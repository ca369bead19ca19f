"""What a table's cells look like: figures, Markdown tables that fit a screen, and texts of records made harmless.

Texts that people wrote into records (labels, reasons, names of columns) are escaped here and nowhere else: `markdown`
for pages, `plain` for pictures.
"""

MOST_COLUMNS, MOST_CHARACTERS = 7, 120  # of a table; what is more goes into a second one
NOTHING = "-"  # not published, or not measured: the text around a table says which
ENTITIES = {ord(sign): f"&#{ord(sign)};" for sign in "&<>|[]*`\\"}


def markdown(text):
    """A record's text for a cell: one line; what Markdown or HTML would take for its own becomes an entity."""
    return " ".join(str(text).split()).translate(ENTITIES)


def plain(text):
    """A record's text for a picture: one line, without the sign that begins a formula there."""
    return " ".join(str(text).split()).replace("$", r"\$")


def figure(metric, n=False):
    """37.2 [32.9, 41.7] of a record's metric, or -; n: with the number of rows."""
    if not metric or metric["value"] is None:
        return NOTHING
    text = f"{metric['value']:.1f}"
    if metric["ci95"]:
        text += " [{:.1f}, {:.1f}]".format(*metric["ci95"])
    return text + (f", n = {metric['n']}" if n and metric["n"] else "")


def table(head, body):
    """A Markdown table; columns of dashes only are left out, and more columns than fit a screen go into further tables
    with the same first column. head: a title a column; body: rows of cells, as text."""
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] != NOTHING for row in body)]
    columns = [[head[i], *(row[i] for row in body)] for i in kept]
    if len(columns) < 2:
        return ""
    parts = [[columns[0]]]
    for column in columns[1:]:
        if len(parts[-1]) > 1 and not fits([*parts[-1], column]):
            parts.append([columns[0]])
        parts[-1].append(column)
    return "\n".join(aligned(part) for part in parts)


def fits(columns):
    return len(columns) <= MOST_COLUMNS and sum(map(width, columns)) + 3 * len(columns) + 1 <= MOST_CHARACTERS


def width(column):
    return max(3, *map(len, column))


def aligned(columns):
    """Columns of text as one Markdown table, aligned so that diffs can be read."""
    widths = list(map(width, columns))
    lines = [
        "| " + " | ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)) + " |"
        for row in zip(*columns, strict=True)
    ]
    rule = "|" + "|".join("-" * (size + 2) for size in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def unique(values):
    return list(dict.fromkeys(values))


def letter(i):
    return "abcdefghijklmnopqrstuvwxyz"[i]
