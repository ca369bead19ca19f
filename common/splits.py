"""Which rows are dropped, how rows are split, and their order. A change to this file changes every table."""

import hashlib
import random

from common.console import InputError

SPLIT_SEED = 42  # rows and subsets never depend on --seed, so that seeds differ in training alone
MAX_CLASSES = 1000


def key(row):
    """Two rows with this key are duplicates: case and white space do not count."""
    return " ".join(f"{row['text']} {row.get('input', '')}".lower().split())


def digest(row):
    """A row's key in 16 characters."""
    return hashlib.sha256(key(row).encode()).hexdigest()[:16]


def reason(row, labelled):
    """Why a row cannot be used, whatever other rows there are; None if it can."""
    text, target = row["text"].strip(), row["target"].strip()
    if not text or not target:
        return "empty"
    return "class None" if labelled and target == "None" else None


def clean(rows, labelled, dropped, excluded=()):
    """Drop empty texts and targets, the class "None", and keys in `excluded` ({key: reason}). Counts in `dropped`.
    Blanks around texts and targets go."""
    cleaned = []
    for row in rows:
        text, target = row["text"].strip(), row["target"].strip()
        why = reason(row, labelled) or (excluded and excluded.get(key(row)))
        if why:
            dropped[why] = dropped.get(why, 0) + 1
        else:
            cleaned.append({**row, "text": text, "target": target})
    return cleaned


def split(rows, shares, labelled, dropped, saved=None):
    """(training, validation, test) of the pooled rows without duplicates, by `shares`, stratified, seed SPLIT_SEED. A
    class that no training row has is moved there.

    saved: {"validation", "test"}: digests of the rows that an earlier split put there. They stay, all others train."""
    unique = {key(row): row for row in reversed(rows)}  # the first of equal texts stays
    if len(unique) < len(rows):
        dropped["duplicate"] = dropped.get("duplicate", 0) + len(rows) - len(unique)
    ordered = spread(list(unique.values())[::-1], labelled)
    if saved:
        place = {known: part for part in ("validation", "test") for known in saved[part]}
        parts = {"train": [], "validation": [], "test": []}
        for row in ordered:
            parts[place.get(digest(row), "train")].append(row)
        parts = tuple(parts.values())
    else:
        train_end, validation_end = (round(sum(shares[:n]) * len(ordered)) for n in (1, 2))
        parts = ordered[:train_end], ordered[train_end:validation_end], ordered[validation_end:]
    if not labelled:
        return parts
    trained = {row["target"] for row in parts[0]}
    alone = [row for part in parts[1:] for row in part if row["target"] not in trained]
    return parts[0] + alone, *([row for row in part if row["target"] in trained] for part in parts[1:])


def classes(train, others, source):
    """Sorted classes of the training rows. Raises InputError for 1 or > MAX_CLASSES, or one that only `others` have."""
    labels = sorted({row["target"] for row in train})
    if len(labels) < 2:
        raise InputError(f"{source} has one class only ({labels[0]:.60}): add rows of another, or name another column")
    if len(labels) > MAX_CLASSES:
        raise InputError(f"{source} has {len(labels)} classes, more than {MAX_CLASSES}: name the label's column")
    for split_name, rows in others.items():
        unseen = sorted({row["target"] for row in rows} - set(labels))
        if unseen:
            raise InputError(
                f"class {unseen[0]!r:.60} is in the {split_name} rows of {source}, not in the training rows: "
                "move some of its rows there, or remove it"
            )
    return labels


def spread(rows, labelled):
    """Shuffle the rows so that every prefix is a stratified sample, and smaller subsets are parts of larger ones.

    Each class is shuffled. Every next row comes from the class that is furthest behind its share (the quota
    method of Balinski and Young), so that a prefix has each class's share to within one row.
    """
    generator, by_class = random.Random(SPLIT_SEED), {}
    for row in rows:
        by_class.setdefault(row["target"] if labelled else None, []).append(row)
    for class_rows in by_class.values():
        generator.shuffle(class_rows)
    if len(by_class) < 2:
        return [row for class_rows in by_class.values() for row in class_rows]
    import numpy

    tie_breaker = numpy.random.RandomState()  # continues the generator's numbers, in arrays
    tie_breaker.set_state(("MT19937", generator.getstate()[1][:-1], generator.getstate()[1][-1]))
    queues, sizes = [iter(class_rows) for class_rows in by_class.values()], numpy.array([*map(len, by_class.values())])
    taken, ordered = numpy.zeros_like(sizes), []
    for size in range(1, len(rows) + 1):
        under_quota = numpy.flatnonzero(taken * len(rows) < sizes * size)
        shares, ties = sizes[under_quota] / (taken[under_quota] + 1), tie_breaker.random_sample(len(under_quota))
        chosen = under_quota[numpy.where(shares == shares.max(), ties, -1).argmax()]
        ordered.append(next(queues[chosen]))
        taken[chosen] += 1
    return ordered


def fingerprint(rows):
    """sha256 over the rows in their order: two records with one fingerprint saw the same data."""
    digest = hashlib.sha256()
    for row in rows:
        for name in sorted(row):
            digest.update(f"{name}\0{row[name]}\0".encode())
    return digest.hexdigest()
