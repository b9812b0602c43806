"""Faults made for real, under load, with exact accounting: see tests/system/ledger.py and docs/evidence/faults.md."""
