"""Statements on dead letters: written, selected, decided about. No policy."""
