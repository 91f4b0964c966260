"""Helpers of tests other than fixtures: one module for each thing that it fakes or does."""
