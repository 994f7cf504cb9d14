"""NSS seen from outside: what it expects of modules, and a client that checks it. Imports only spec."""
