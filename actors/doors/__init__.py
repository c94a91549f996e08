"""What every door is made of, and nothing that only one of them needs."""
