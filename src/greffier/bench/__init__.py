"""Measuring: tools for a fair comparison, and the small suite behind ``greffier bench``.

A time says something of one machine at one moment.  So each number here is a ratio: our way beside
the least that PostgreSQL or this machine could do for it, both measured in turns in one run.  The
folder ``bench/`` of the source uses the same tools for the large measurements.
"""
