"""Statements on the console's search index and figures: what fills them, and what reads them. All reading is bounded."""
