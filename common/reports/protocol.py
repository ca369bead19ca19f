"""What of an experiment equals the study and what differs on purpose: the script's SETTINGS beside the study's values
in protocols.json. The reason is the comment beside the value in the script."""

import ast
import io
import tokenize

from common import files
from common.console import InputError
from common.reports import cells, join

FILE = "common/reports/protocols.json"


def table(folder, task):
    """The settings that equal the study's in a sentence, those that differ in a table with their reasons beneath."""
    protocol, study = of_task(folder, task)
    equal, differing = compared(folder, task, protocol)
    notes = cells.unique(why for *_, why in differing if why)
    body = []
    for what, theirs, ours, why in differing:
        mark = f" <sup>{cells.letter(notes.index(why))}</sup>" if why else ""
        body.append([what + mark, theirs, ours])
    link = f"[{study['name']}]({study['link']}) ({study['version']})"
    text = [f"Equal to {link}: {', '.join(equal)}." if equal else f"The study is {link}.", "Different on purpose:", ""]
    text.append(cells.table(["setting", "in the study", "here"], body))
    text.append("  \n".join(f"<sup>{cells.letter(i)}</sup> {cells.markdown(note)}" for i, note in enumerate(notes)))
    return "\n".join(text) + "\n"


def compared(folder, task, protocol):
    """(texts of what equals the study, [what, the study's value, ours, reason]). The reason is None where the comment
    in the script says no more than the study's value."""
    settings = join.training_settings(folder.path, task)
    if settings is None:
        raise InputError(f"{folder.name} has no script that trains for {task}")
    beside = comments(folder.path / f"{folder.name}_{task}.py")
    equal, differing = [], []
    for name, theirs in protocol["settings"].items():
        ours = "all linear layers" if (name, settings.full_tune) == ("targets", True) else settings.fields()[name]
        if ours == theirs:
            equal.append(f"`{name}` {in_words(ours)}")
        else:
            why = beside.get(name)
            repeated = why == f"study: {in_words(theirs)}"
            differing.append([f"`{name}`", in_words(theirs), in_words(ours), None if repeated else why])
    for what, theirs, ours, why in protocol["more"]:
        if ours == theirs:
            equal.append(f"{what} {ours}")
        else:
            differing.append([what, theirs, ours, why])
    return equal, differing


def of_task(folder, task):
    """(the task's protocol for this folder, the study)."""
    kept = files.read_json(files.ROOT / FILE)
    key = "encoder" if folder.facts.VARIANTS[0].format == "encoder" else task
    if key == "encoder" and task != "sentiment":
        raise InputError(f"no study says how it trained an encoder for {task}")
    protocol = kept["tasks"][key]
    settings = protocol["settings"] | protocol.get("folders", {}).get(folder.name, {})
    return protocol | {"settings": settings}, kept["studies"][protocol["study"]]


def in_words(value):
    if isinstance(value, list):
        return " ".join(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def comments(path):
    """{setting: the comment on its line} of a script's SETTINGS."""
    text = path.read_text(encoding="utf-8")
    beside = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    }
    made = next(node.value for node in ast.parse(text).body if isinstance(node, ast.Assign) and is_settings(node))
    lines = {keyword.arg: keyword.value.end_lineno for keyword in made.keywords}
    return {name: beside[line] for name, line in lines.items() if line in beside}


def is_settings(node):
    return [getattr(target, "id", None) for target in node.targets] == ["SETTINGS"] and isinstance(node.value, ast.Call)
