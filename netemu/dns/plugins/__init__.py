"""One module per plugin, named as its directive. Each has `setup(directive, block) -> Plugin`; `chain.ORDER` has the
order."""
