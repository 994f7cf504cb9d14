"""Small faults put into keyfob's own source, each of which the tests of a rule have to notice.

`lists/*.diff` name for each rule of the guide at least two ways to break it; `catalogue.py` reads them, `__main__.py`
(`make mutants`) tries them. The mutants of tests/check/mutants are others: modules on which the checker is tried.
"""
