"""The report: scorecards, verdict, sections, tables and figures."""
