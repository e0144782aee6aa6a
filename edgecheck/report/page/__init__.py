"""The HTML report's page: what it shows, as plain data, and its template, style and script.

Pure functions of a run's document.
"""
