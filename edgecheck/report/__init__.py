"""Reports: one module a view of the run's records.

A record is made once, as plain data, by `edgecheck.report.record`; every view shows it.
"""
