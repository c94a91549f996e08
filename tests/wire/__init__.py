"""Tests of the sans-IO codecs; golden data are bytes other implementations send."""
