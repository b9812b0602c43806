"""What only a real browser can tell: pages for browsers, in Chromium."""
