"""Tests of wire.rendezvous."""
