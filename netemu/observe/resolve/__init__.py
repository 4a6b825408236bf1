"""What a resolver does with a name, question by question."""
