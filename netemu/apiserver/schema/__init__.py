"""What fields kinds have, and what values fit them."""
