"""What is wrong with an object, in upstream's words."""
