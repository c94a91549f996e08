"""Files that hold state: made private, checked before they are trusted, replaced whole, locked.

Standard library only, blocking, no actors: everybody who keeps something on disk asks here.
"""
