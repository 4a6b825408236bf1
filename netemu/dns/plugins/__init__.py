"""One module per plugin, named as its directive. Each has `setup(directive, block) -> Plugin`, or
`setup_all(directives, block)` where all directives of a server block make one plugin; `chain.ORDER` has the order."""
