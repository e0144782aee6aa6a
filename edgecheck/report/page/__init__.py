"""The HTML report's page: what it shows, as plain data, and its template, style and script.

Pure functions of a run's document. Not for writing the file: that is `edgecheck.report.html`.
"""
