"""What Azure Device Update's agent loads and runs: a component enumerator, and scripts for its script handler."""
