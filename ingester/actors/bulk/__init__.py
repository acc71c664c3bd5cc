"""Bulk uploads: the workers (`worker`), and the two halves of each upload, decoding (`decode`) and
storing (`insert`).
"""
