"""From everywhere to every Service: predicted and measured."""
