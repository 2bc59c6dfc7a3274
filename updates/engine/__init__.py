"""Carrying an update out: the plan, the order, the journal, the report."""
