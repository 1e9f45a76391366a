"""Sorting, and what is picked by rank."""

from __future__ import annotations

__all__: list[str] = []
