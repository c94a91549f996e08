"""The peer door: messages between clients of openZro and NetBird that do not reach each other."""
