"""How the rows of a mean can be weighed. Imports nothing, for the help of commands."""

#: Rows alike, by the pool's task shares, and tasks alike: in the order of reports.
ROWS, POOL, TASKS = "rows", "pool", "tasks"
WEIGHTINGS = (ROWS, POOL, TASKS)
