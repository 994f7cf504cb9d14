"""Chromium driven without a person: headless, or on a screen that nobody sees with a keyboard that nobody touches."""
