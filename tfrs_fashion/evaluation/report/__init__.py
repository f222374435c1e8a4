"""The report: scorecards, the verdict, its sections and figures."""
