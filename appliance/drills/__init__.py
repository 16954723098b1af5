"""Rehearsals: a cloud that fails on demand, and a report of what an application would have seen."""
