"""Blind human scores of records' answers: `python -m common rate RECORD…` (README.md beside this file)."""

from common.ratings.command import main
from common.ratings.scores import human
from common.ratings.store import FILE, SCALE, answers, append, read

__all__ = ["FILE", "SCALE", "answers", "append", "human", "main", "read"]
