"""Statements on deliveries and their endpoints. No policy: callers decide what is written."""
