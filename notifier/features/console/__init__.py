"""The console: pages for operators in a browser, and their API. Start with `console_feature.py`."""
