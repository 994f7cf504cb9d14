"""The standard as data: constants, functions, structs, attribute rows. Imports nothing of keyfob's other rooms."""
