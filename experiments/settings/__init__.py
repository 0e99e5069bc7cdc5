"""What a row runs: frozen dataclasses with `headline`, `label` and `run(job)`, a kind a file."""
