"""Cells of tables: figures as text, Markdown tables that fit a screen, and escaped texts of records.

Texts that people wrote into records (labels, reasons, names of columns) are escaped here only: `markdown` for READMEs,
`plain` for pictures.
"""

MOST_COLUMNS, MOST_CHARACTERS = 7, 120  # limits of a table; further columns go into a second table
NOTHING = "-"  # not published or not measured; the text around a table says which
ENTITIES = {ord(sign): f"&#{ord(sign)};" for sign in "&<>|[]*`\\"}


def markdown(text):
    """A record's text for a cell, as one line; signs that Markdown or HTML would interpret become entities."""
    return " ".join(str(text).split()).translate(ENTITIES)


def plain(text):
    """A record's text for a picture, as one line; "$", which begins a formula in matplotlib, is escaped."""
    return " ".join(str(text).split()).replace("$", r"\$")


def figure(metric, n=False):
    """A record's metric as "37.2 [32.9, 41.7]", or "-" without a value. n: append the number of rows."""
    if not metric or metric["value"] is None:
        return NOTHING
    text = f"{metric['value']:.1f}"
    if metric["ci95"]:
        text += " [{:.1f}, {:.1f}]".format(*metric["ci95"])
    return text + (f", n = {metric['n']}" if n and metric["n"] else "")


def table(head, body):
    """A Markdown table without the columns that hold dashes only; columns that do not fit a screen go into further
    tables with the same first column, where names that are not unique get the cell of the second column appended. head:
    titles of the columns; body: rows of cells, as text."""
    shown = [i for i in range(len(head)) if i == 0 or any(row[i] != NOTHING for row in body)]
    columns = [[head[i], *(row[i] for row in body)] for i in shown]
    if len(columns) < 2:
        return ""
    names, tables = told_apart(*columns[:2]), [[columns[0]]]
    for column in columns[1:]:
        if len(tables[-1]) > 1 and not fits([*tables[-1], column]):
            tables.append([names])
        tables[-1].append(column)
    return "\n".join(aligned(columns_of_table) for columns_of_table in tables)


def told_apart(names, others):
    """`names`; those that are not unique get the text of the same place in `others` appended."""
    both = zip(names, others, strict=True)
    return [f"{name} ({other})" if names.count(name) > 1 else name for name, other in both]


def fits(columns):
    return len(columns) <= MOST_COLUMNS and sum(map(width, columns)) + 3 * len(columns) + 1 <= MOST_CHARACTERS


def width(column):
    return max(3, *map(len, column))


def aligned(columns):
    """Columns of text as one Markdown table, aligned for readable diffs."""
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
