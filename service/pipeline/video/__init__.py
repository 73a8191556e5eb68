"""Analysis of encoded videos.

May import: what `pipeline` may import.
"""
