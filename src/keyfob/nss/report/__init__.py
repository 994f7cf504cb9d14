"""Reports of a run: for a terminal, as JSON, for CI as JUnit's XML. Each takes a model.Report."""
