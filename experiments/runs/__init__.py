"""How rows are run and kept: tables, engines, records."""
