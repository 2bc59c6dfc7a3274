"""Update manifests, component selection, steps with their handlers, ordered execution, and the report."""
