"""The benchmark: contenders, the work that all of them do, the floor, cold runs and the report."""
