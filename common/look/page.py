"""The page of `--html`: one file without scripts or anything from a network."""

from pathlib import Path

from common import files, metrics
from common.console import InputError
from common.look import report

SHOWN = 200  # dropped rows and classes on the page


def check(target, source):
    """Raises InputError if the page cannot be written to `target`, or would replace a file that is no page of look."""
    target = Path(target)
    if target.exists():
        own = target.is_file() and MARK in target.read_text(encoding="utf-8", errors="replace")[:300]
        if not own:
            raise InputError(f"{target} is no page that `look` wrote: name another file with --html")
    if not target.resolve().parent.is_dir():
        raise InputError(f"cannot write {target}: there is no folder {target.parent}")


MARK = "<!-- python -m common look -->"


def rendered(record):
    """The page of a record, as HTML. Texts of the rows are escaped by jinja2."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["figure"] = metrics.figure
    environment.globals |= {"titles": metrics.TITLES, "expected": report.expected, "shown": SHOWN}
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(record=record, file=report.file(record))


def write(target, record):
    """Raises InputError if the page cannot be written."""
    try:
        files.write_text(target, rendered(record))
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror}") from None
