"""Analysis of encoded videos."""
