"""What operators see from outside."""
