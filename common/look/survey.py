"""One pass over the rows of a file or folder: what is dropped and why, duplicates, conflicts, classes, a sample.

A row leaves 32 bytes of numbers behind, not its text, so that a file of any size can be read. The reasons are those of
common/splits.py, which the trainings use.
"""

import itertools
import math
import random
from array import array
from collections import Counter
from dataclasses import dataclass, field

from common import console, rowfiles, splits

LISTED = 1_000  # dropped rows that are kept one by one; all are counted
EXAMPLES = 20  # groups of rows with conflicting targets that are kept
MANY_CLASSES = 100 * splits.MAX_CLASSES  # so many different labels are no labels: the rest is not counted apart


class Reservoir:
    """A uniform sample of `size` of the rows that it is offered, with one seed. Algorithm L (Li 1994, doi
    10.1145/198429.198435): random numbers are drawn for the rows that are kept alone."""

    def __init__(self, size):
        self.rows, self.size, self.offered, self.following = [], size, 0, None
        self.generator, self.weight = random.Random(splits.SPLIT_SEED), 1.0

    def offer(self, row):
        place, self.offered = self.offered, self.offered + 1
        if place < self.size:
            self.rows.append(row)
            if place < self.size - 1:
                return
        elif place == self.following:
            self.rows[self.generator.randrange(self.size)] = row
        else:
            return
        self.weight *= (1 - self.generator.random()) ** (1 / self.size)
        skipped = math.log(1 - self.generator.random()) / math.log1p(-self.weight) if self.weight < 1 else 0
        self.following = place + 1 + int(skipped)


@dataclass
class Part:
    """What the pass over one file leaves. Arrays have an entry for each row that can be used."""

    source: object  # rowfiles.Source
    read: int = 0
    bad: list = field(default_factory=list)  # (number, reason) of rows that no run can use, at most LISTED
    reasons: Counter = field(default_factory=Counter)
    digests: array = field(default_factory=lambda: array("Q"))  # splits.digest, as a number
    numbers: array = field(default_factory=lambda: array("Q"))  # of the row, as Source.rows counts
    targets: array = field(default_factory=lambda: array("q"))
    characters: int = 0  # of all texts
    sample: list = field(default_factory=list)


@dataclass
class Survey:
    """The findings. read: rows of each file; used: rows that are left; dropped: {reason: rows}; listed: the first
    LISTED dropped rows as dictionaries; classes: {name: rows left}, of labels only; duplicates: rows whose text stands
    earlier in the same file; conflicts: {"texts", "rows", "examples"}: equal texts with different targets; in_both:
    texts in more than one file; sample: {split: rows}; characters: of all texts."""

    unit: str
    read: dict
    used: int
    dropped: dict
    listed: list
    classes: dict
    duplicates: int
    conflicts: dict
    in_both: int
    sample: dict
    characters: int


def survey(sources, choice, names, size):
    """The Survey of the rows. sources: {split: rowfiles.Source}, "all" for one file that will be split; names: {label:
    name}, or None; size: rows of the sample of each file."""
    ids, parts = {}, {}
    for split, source in sources.items():
        parts[split] = passed(source, choice, names, ids, size)
    return findings(parts, choice, {number: name for name, number in ids.items()})


def passed(source, choice, names, ids, size):
    """The Part of one file. ids: {target: number}, of all files, which grows."""
    part, reservoir, labelled = Part(source), Reservoir(size), choice.labelled
    part.sample = reservoir.rows
    bar = console.progress(expected_rows(source), f"reading {source.path.name}", "row") if is_large(source) else None
    for number, row in rowfiles.named_rows(source, choice.fields, own=True, labels=names):
        part.read += 1
        if bar is not None and part.read % 2048 == 0:
            bar.update(2048)
        reason = splits.reason(row, labelled)
        if reason:
            part.reasons[reason] += 1
            if len(part.bad) < LISTED:
                part.bad.append((number, reason))
            continue
        target = row["target"].strip()
        part.digests.append(int(splits.digest(row), 16))
        part.numbers.append(number)
        known = ids.setdefault(target, len(ids)) if labelled and len(ids) < MANY_CLASSES else hash(target)
        part.targets.append(known)
        part.characters += len(row["text"])
        reservoir.offer(row)
    if bar is not None:
        bar.update(part.read % 2048)
        bar.close()
    return part


def is_large(source):
    return source.path.stat().st_size > 20_000_000


def expected_rows(source):
    """Number of rows of a file, about: exact for parquet, else by the length of the first rows; None if packed."""
    if source.format == ".parquet":
        return rowfiles.formats.parquet(source.path).metadata.num_rows
    if source.compressed:
        return None
    sizes = [sum(len(str(value).encode()) + 1 for value in row.values()) for _, row in head(source)]
    return round(source.path.stat().st_size / sum(sizes) * len(sizes)) if sum(sizes) else None


def mean_characters(source, choice):
    """Mean length of the first texts, without the rest of the file."""
    texts = [len(str(row.get(choice.columns["text"]) or "")) for _, row in head(source)]
    return sum(texts) / max(1, len(texts))


def head(source):
    return itertools.islice(source.rows(), 1000)


def findings(parts, choice, names):
    """The Survey of the Parts {split: Part}. names: {number: target}."""
    import numpy

    dropped, listed = Counter(), []
    order = [split for split in ("test", "validation", "train", "all") if split in parts]  # as data.load excludes rows
    seen, classes, duplicates, shared = {}, Counter(), 0, [numpy.zeros(0, "u8")]
    for split in order:
        part = parts[split]
        digests, numbers = numpy.asarray(part.digests, "u8"), numpy.asarray(part.numbers, "u8")
        reason = numpy.zeros(len(digests), "u1")  # an index of `reasons`; 0: used
        reasons = [None, "duplicate", *(f"also in {other}" for other in seen)]
        first = firsts(digests)
        repeats = numpy.flatnonzero(first != numpy.arange(len(first)))
        duplicates += len(repeats)
        if split == "all":
            reason[repeats] = 1
        for index, other in enumerate(seen, 2):  # what is left of them has no text in common
            reason[numpy.isin(digests, seen[other])] = index
        shared.append(digests[reason > 1])
        places = numpy.flatnonzero(reason)
        dropped.update(part.reasons)
        dropped.update({name: int((reason == i).sum()) for i, name in enumerate(reasons) if i and (reason == i).any()})
        lines = [(number, why, None) for number, why in part.bad]
        for place in places[:LISTED]:
            earlier = int(numbers[first[place]]) if reason[place] == 1 else None
            lines.append((int(numbers[place]), reasons[reason[place]], earlier))
        listed += [entry(part.source, split, *line) for line in sorted(lines)]
        left = numpy.asarray(part.targets, "i8")[reason == 0]
        if choice.labelled:
            found, counts = numpy.unique(left, return_counts=True)
            classes.update({names.get(int(n), "other"): int(c) for n, c in zip(found, counts, strict=True)})
        seen[split] = digests[reason == 0] if split != "all" else digests
    read = {part.source.path.name: part.read for part in parts.values()}
    used = sum(read.values()) - sum(dropped.values())
    return Survey(
        unit=next(iter(parts.values())).source.unit,
        read=read,
        used=used,
        dropped=dict(dropped),
        listed=listed[:LISTED],
        classes=dict(sorted(classes.items(), key=lambda pair: (-pair[1], pair[0]))),
        duplicates=duplicates,
        conflicts=conflicts([parts[split] for split in order], choice, names),
        in_both=len(numpy.unique(numpy.concatenate(shared))),
        sample={split: part.sample for split, part in parts.items()},
        characters=sum(part.characters for part in parts.values()),
    )


def entry(source, split, number, reason, earlier):
    """A dropped row as a dictionary. earlier: number of the row that it repeats, or None."""
    place = {} if split == "all" else {"file": source.path.name}
    return {**place, source.unit: number, "reason": reason} | ({"first": earlier} if earlier is not None else {})


def firsts(digests):
    """For each digest the place of the first equal one, as an array."""
    import numpy

    order = numpy.argsort(digests, kind="stable")
    begins = numpy.r_[True, digests[order][1:] != digests[order][:-1]] if len(order) else numpy.zeros(0, bool)
    first = numpy.empty(len(order), "i8")
    first[order] = order[begins][numpy.cumsum(begins) - 1] if len(order) else []
    return first


def conflicts(parts, choice, names):
    """{"texts": equal texts with different targets, "rows": their rows, "examples": the first EXAMPLES of them}, over
    all files. An example has the rows' numbers and, of labels, the labels."""
    import numpy

    digests = numpy.concatenate([numpy.asarray(part.digests, "u8") for part in parts])
    targets = numpy.concatenate([numpy.asarray(part.targets, "i8") for part in parts])
    first = firsts(digests)
    differs = numpy.flatnonzero(targets != targets[first])
    texts = numpy.unique(first[differs])
    rows = numpy.flatnonzero(numpy.isin(first, texts))
    groups = {int(place): [] for place in texts[:EXAMPLES]}
    for row in rows:
        if int(first[row]) in groups:
            groups[int(first[row])].append(int(row))

    def described(row):
        part, row = next((part, row - start) for part, start in reversed(starts) if row >= start)
        found = {"file": part.source.path.name} if len(parts) > 1 else {}
        found |= {part.source.unit: int(part.numbers[row])}
        return found | ({choice.role: names.get(int(part.targets[row]))} if choice.labelled else {})

    starts = [(part, sum(len(other.numbers) for other in parts[:i])) for i, part in enumerate(parts)]
    examples = [[described(row) for row in group[:5]] for group in groups.values()]
    return {"texts": len(texts), "rows": len(rows), "examples": examples}
