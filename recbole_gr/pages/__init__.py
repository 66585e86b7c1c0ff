"""HTML pages of runs, studies, searches, periods and SID tables, from the JSON beside them."""
