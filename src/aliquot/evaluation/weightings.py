"""How the rows of a mean can be weighed. Imports nothing, for the help of commands."""

#: Rows alike, by the pool's task shares, tasks alike, and by the target's task shares: in the order of reports.
ROWS, POOL, TASKS, TARGET = "rows", "pool", "tasks", "target"
WEIGHTINGS = (ROWS, POOL, TASKS, TARGET)
