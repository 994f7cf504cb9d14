"""Firefox ESR driven without a person: a Marionette client, a browser with a profile of its own, a TLS test server."""
