"""Benchmarks: one file per stage and one per whole-process question, rivals in the same run.

`python -m bench` lists and runs them. Every bench calls the functions production calls and
returns `report.Row` values; nothing here is imported by `ingester`.
"""
