"""Tests of who is asked which sessions end."""
