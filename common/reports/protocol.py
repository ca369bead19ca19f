"""Compare a script's SETTINGS with the study's values in protocols.json. The reason of a difference is the comment
beside the value in the script."""

import ast
import io
import tokenize

from common import files
from common.console import InputError
from common.reports import cells, join

FILE = "common/reports/protocols.json"


def table(folder, task):
    """A sentence with the settings that equal the study's, and a table of the others with their reasons beneath."""
    protocol, study = of_task(folder, task)
    equal, differing = compared(folder, task, protocol)
    notes = cells.unique(reason for *_, reason in differing if reason)
    body = []
    for setting, in_study, here, reason in differing:
        mark = f" <sup>{cells.letter(notes.index(reason))}</sup>" if reason else ""
        body.append([setting + mark, in_study, here])
    link = f"[{study['name']}]({study['link']}) ({study['version']})"
    text = [f"Equal to {link}: {', '.join(equal)}." if equal else f"The study is {link}.", "Different on purpose:", ""]
    text.append(cells.table(["setting", "in the study", "here"], body))
    text.append("  \n".join(f"<sup>{cells.letter(i)}</sup> {cells.markdown(note)}" for i, note in enumerate(notes)))
    return "\n".join(text) + "\n"


def compared(folder, task, protocol):
    """([equal setting in words], [[setting, value in the study, value here, reason]] of the different ones). The reason
    is None if the comment in the script only repeats the study's value. Raises InputError without such a script."""
    settings = join.training_settings(folder.path, task)
    if settings is None:
        raise InputError(f"{folder.name} has no script that trains for {task}")
    reasons = comments(folder.path / f"{folder.name}_{task}.py")
    equal, differing = [], []
    for name, in_study in protocol["settings"].items():
        here = "all linear layers" if (name, settings.full_tune) == ("targets", True) else settings.fields()[name]
        if here == in_study:
            equal.append(f"`{name}` {in_words(here)}")
        else:
            reason = reasons.get(name)
            redundant = reason == f"study: {in_words(in_study)}"
            differing.append([f"`{name}`", in_words(in_study), in_words(here), None if redundant else reason])
    for setting, in_study, here, reason in protocol["more"]:
        if here == in_study:
            equal.append(f"{setting} {here}")
        else:
            differing.append([setting, in_study, here, reason])
    return equal, differing


def of_task(folder, task):
    """(protocol of the task for this folder, its study), from protocols.json. Raises InputError for an encoder's task
    without a study."""
    protocols = files.read_json(files.ROOT / FILE)
    key = "encoder" if folder.facts.VARIANTS[0].format == "encoder" else task
    if key == "encoder" and task != "sentiment":
        raise InputError(f"no study says how it trained an encoder for {task}")
    protocol = protocols["tasks"][key]
    settings = protocol["settings"] | protocol.get("folders", {}).get(folder.name, {})
    return protocol | {"settings": settings}, protocols["studies"][protocol["study"]]


def in_words(value):
    if isinstance(value, list):
        return " ".join(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def comments(path):
    """{setting: comment on its line} of a script's SETTINGS. path: of the script."""
    text = path.read_text(encoding="utf-8")
    comment_on_line = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    }
    call = next(node.value for node in ast.parse(text).body if isinstance(node, ast.Assign) and is_settings(node))
    lines = {keyword.arg: keyword.value.end_lineno for keyword in call.keywords}
    return {name: comment_on_line[line] for name, line in lines.items() if line in comment_on_line}


def is_settings(node):
    return [getattr(target, "id", None) for target in node.targets] == ["SETTINGS"] and isinstance(node.value, ast.Call)
