"""Safekeeping: the data folder as a whole, checked, repaired, copied and brought back.

Everything here blocks and works in a thread of low priority beside a running server, or alone on a
stopped folder whose lock it holds. It stands above store and journal because it needs both.
"""
