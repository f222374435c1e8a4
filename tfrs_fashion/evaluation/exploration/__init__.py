"""The exploration page: tables, features, missing values and figures of a data source."""
