"""What operators see from outside: counters, metrics over HTTP, a JSONL dump, the access log."""
