"""What is wrong with rules, in one line."""

from __future__ import annotations


class RulesError(ValueError):
    """The rules cannot be used. Its text names the file, rule and key, what is wrong, and what is allowed."""
