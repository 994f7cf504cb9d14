"""Firefox ESR driven without a person: pages visited, its own windows for devices and certificates, pictures taken."""
