"""The planner: what one more piece of work is worth on this problem, what it costs, and where to stop."""
